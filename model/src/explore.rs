//! Making programs and going through them: by chance, by change, one by one, and down to the smallest.

pub mod choices;
pub mod exhaust;
pub mod generate;
pub mod minimize;
