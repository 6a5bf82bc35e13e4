//! Trees: directories held by descriptor, listings, hard links, filters, plans.

pub mod filter;
pub mod links;
pub mod listing;
pub mod node;
pub mod plan;
