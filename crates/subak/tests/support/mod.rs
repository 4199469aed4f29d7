//! What several tests share.

pub mod warehouse;
