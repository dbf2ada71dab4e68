//! Pods and containers over the CRI, as a kubelet asks for them.

mod cdi;
mod foreign;
mod life;
mod logs;
mod metrics;
mod network;
mod pause;
mod people;
mod restart;
mod security;
mod sessions;
