//! Pods and containers over the CRI, as a kubelet asks for them.

mod foreign;
mod life;
mod logs;
mod network;
mod restart;
mod security;
