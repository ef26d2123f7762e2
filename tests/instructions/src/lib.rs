//! Counts the instructions of what happens most often, by callgrind: they are the same on a machine that is busy with
//! something else. `cargo xtask bench --instructions` runs `benches/count.rs` and compares with `baseline.txt`.
