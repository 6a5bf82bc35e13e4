//! Trees: entries, filters, differences, plans.

pub mod filter;
pub mod plan;
