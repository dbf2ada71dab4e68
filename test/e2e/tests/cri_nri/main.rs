//! Plugins of the Node Resource Interface on a node: told of pods and containers, asked what they are to be, cut off.

mod adjust;
mod bed;
mod faults;
mod life;
