//! What several tests share.

pub(crate) mod change;
pub(crate) mod warehouse;
