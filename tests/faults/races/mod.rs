//! Delete, recreate, import and a half-made registration race against refreshes and crashes, and come out whole.

mod half_made;
mod interleaved;
mod look;
mod replaced;
mod storm;
