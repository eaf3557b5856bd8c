//! Judges images that `qemu-img` made, and damaged ones.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]

mod honest;
mod hostile;
mod made;
mod noise;
