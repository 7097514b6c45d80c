//! docker-proxy's contract as black-box scenarios: for netproxy, and for docker-proxy itself.

mod flags;
mod scarcity;
mod sctp;
mod status;
mod tcp;
mod udp;
