//! `/tokens`.

mod refresh;
