//! A virtio network card on a tap of the host, or on a stream socket.
//!
//! A frame from the guest goes through [`transmit`] to the [`cable`], which is a [`tap`] or a
//! [`stream`]; one for the guest comes from there into buffers that [`posted`] holds (a tap's is
//! read straight into them), and [`receive`] hands over those that pass the [`filter`]. [`worker`] is both
//! on one thread. [`card`] is the device as the frontend sees it, [`config`] its registers,
//! [`control`] the queue on which the driver says how many [`pairs`] it uses and what it wants to
//! receive, [`offload`] what guest and host leave to each other.
//!
//! A [`switch`] joins several guests in one daemon, without any cable.

pub mod cable;
pub mod card;
pub mod cli;
pub mod config;
pub mod control;
pub mod filter;
mod inherit;
pub mod link;
pub mod mac;
pub mod offload;
pub mod pairs;
pub mod posted;
pub mod receive;
pub mod stream;
mod subnet;
pub mod switch;
pub mod tap;
pub mod transmit;
pub mod worker;
