//! Builds the generated wire types.

fn main() {}
