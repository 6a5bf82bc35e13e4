//! What the daemon's file promises.
