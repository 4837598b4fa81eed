//! A virtio network card on a tap of the host.
//!
//! A frame from the guest goes through [`transmit`] to the [`tap`]; one for the guest is read from
//! the tap straight into buffers that [`posted`] holds, and [`receive`] hands them over. [`worker`]
//! is both on one thread. [`card`] is the device as the frontend sees it, [`config`] its
//! registers, [`offload`] what guest and host leave to each other.

pub mod card;
pub mod cli;
pub mod config;
pub mod link;
pub mod mac;
pub mod offload;
pub mod posted;
pub mod receive;
pub mod tap;
pub mod transmit;
pub mod worker;
