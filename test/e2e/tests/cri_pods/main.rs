//! Pods and containers over the CRI, as a kubelet asks for them.

mod cdi;
mod classes;
mod config;
mod confinement;
mod controllers;
mod foreign;
mod life;
mod logs;
mod metrics;
mod network;
mod pause;
mod people;
mod proxy;
mod restart;
mod security;
mod sessions;
