//! Every bound of copyd: name, unit, reason, one home.

/// Examples of one class of loss that are sent as events and logged; the rest is only counted,
/// because a hundred million lines help nobody.
pub const LOSS_EXAMPLES: u64 = 20;
