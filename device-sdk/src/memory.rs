//! The memory table.
