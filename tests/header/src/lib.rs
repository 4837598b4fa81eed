//! A crate of its own, so that nothing else waits for cbindgen to be built.
