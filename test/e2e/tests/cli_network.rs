//! Networks of containers, on a host that is a network namespace of the test's own.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use berth_sys::thread::in_new_network;
use e2e::{Cli, IMAGE};
use testkit::wait;

/// A program that greets every caller on port 80.
const SERVE: &str = "while true; do echo hello | nc -l -p 80; done";

/// Starts a daemon on a host of its own, and looks at the end whether anything of the network is left.
fn on_a_host(test: impl FnOnce(&mut Cli) + Send) {
    let host = || {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success());
        let Ok(mut cli) = Cli::start() else { return Ok(()) };
        test(&mut cli);
        cli.run("network prune -f").ok();
        let devices = devices();
        assert!(devices.iter().all(|name| !name.starts_with("veth")), "{devices:?}");
        for folder in ["home/.netns", "home/.net/endpoints"] {
            let left = std::fs::read_dir(cli.path(folder)).map_or(0, |entries| entries.flatten().count());
            assert_eq!(left, 0, "{folder}");
        }
        let leases = std::fs::read_dir(cli.path("home/.net/leases/bridge"));
        let leases = leases.into_iter().flatten().flatten().map(|entry| entry.file_name());
        assert_eq!(leases.filter(|name| name.to_string_lossy().starts_with("10.")).count(), 0);
        Ok(())
    };
    in_new_network(host).expect("a network namespace can be made");
}

fn devices() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("the kernel lists its devices");
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

fn greeting(port: u16) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

#[test]
fn a_published_port_is_reached_and_told_and_gone_with_its_container() {
    on_a_host(|cli| {
        let run = format!("run -d --network bridge -p 127.0.0.1:18080:80 --name web {IMAGE}");
        cli.sh(&run, SERVE).ok();
        assert_eq!(wait::until("an answer", wait::SOON, || greeting(18080)), "hello\n");
        assert_eq!(cli.run("port web").ok(), "80/tcp -> 127.0.0.1:18080\n");
        assert_eq!(cli.run("port web 80").ok(), "127.0.0.1:18080\n");
        assert_eq!(cli.run("ps --format {{.Ports}}").ok(), "127.0.0.1:18080->80/tcp\n");
        let address = cli.run("inspect -f {{.NetworkSettings.IPAddress}} web").ok();
        assert_eq!(address, "10.4.0.2\n");
        let hosts = cli.run("exec web cat /etc/hosts").ok();
        assert!(hosts.contains("10.4.0.2\t"), "{hosts}");
        let taken = cli.run(&format!("run --network bridge -p 18080:80 {IMAGE} true")).fails();
        assert!(taken.contains("port is already allocated"), "{taken}");
        let shared = format!("run --rm --network container:web {IMAGE}");
        assert!(cli.sh(&shared, "ip -4 addr show eth0").ok().contains("10.4.0.2/24"));
        cli.run("restart -t 0 web").ok();
        assert_eq!(wait::until("an answer again", wait::SOON, || greeting(18080)), "hello\n");
        assert_eq!(cli.run("inspect -f {{.NetworkSettings.IPAddress}} web").ok(), address);
        cli.run("rm -f web").ok();
        assert!(greeting(18080).is_none());
        let free = format!("run --rm --network bridge --expose 80 -P {IMAGE} true");
        cli.run(&free).ok();
        assert_eq!(cli.run("ps -aq").ok().lines().count(), 0, "what failed left no container");
    });
}

#[test]
fn containers_on_a_network_find_each_other_by_name() {
    on_a_host(|cli| {
        cli.run("network create --subnet 10.99.0.0/24 blue").ok();
        assert!(cli.run("network ls -q").ok().lines().eq(["blue", "bridge", "host", "none"]));
        let run = format!("run -d --network blue --ip 10.99.0.40 --name web --network-alias www {IMAGE}");
        cli.sh(&run, SERVE).ok();
        cli.run(&format!("run -d --network blue --name asks {IMAGE} sleep 1000")).ok();
        for name in ["web", "www"] {
            wait::soon("the other to answer by name", || {
                cli.run("exec asks nc -w 2").args([name, "80"]).outcome().stdout_text() == "hello\n"
            });
        }
        let inspected = cli.run("network inspect blue").ok();
        assert!(inspected.contains("10.99.0.40/24") && inspected.contains("asks"), "{inspected}");
        assert!(cli.run("network rm blue").fails().contains("active endpoints"));
        cli.run("rm -f web").ok();
        assert!(!cli.run("exec asks cat /etc/hosts").ok().contains("www"));
        cli.run("rm -f asks").ok();
        cli.run("network rm blue").ok();
        assert!(
            cli.run(&format!("run --network blue {IMAGE} true")).fails().contains("network blue not found")
        );
    });
}

#[test]
fn whoever_is_killed_the_network_is_there_for_the_next_start_and_goes_with_rm() {
    on_a_host(|cli| {
        let client = cli.run(&format!("run --network bridge --name one {IMAGE} sleep 1000")).start();
        cli.reaches("one", "running");
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(client.pid() as i32).expect("a process has a number"),
            rustix::process::Signal::KILL,
        )
        .expect("it runs");
        client.wait();
        cli.daemon_mut().kill();
        cli.daemon_mut().restart();
        cli.run("kill one").ok();
        cli.reaches("one", "exited");
        // What a start of the machine takes: the devices, and the namespace.
        assert!(
            Command::new("ip").args(["link", "del", "berth0"]).status().is_ok_and(|status| status.success())
        );
        let holder = cli.run("inspect -f {{.NetworkSettings.SandboxKey}} one").ok();
        rustix::mount::unmount(holder.trim(), rustix::mount::UnmountFlags::DETACH).expect("it is held");
        cli.run("start one").ok();
        let seen = cli.run("exec one ip -4 addr show eth0").ok();
        assert!(seen.contains("10.4.0.2/24"), "{seen}");
        cli.run("rm -f one").ok();
    });
}

#[test]
fn the_daemon_makes_the_network_whole_before_it_starts_a_container_again() {
    on_a_host(|cli| {
        cli.run(&format!("run -d --restart always --network bridge --name one {IMAGE} sleep 1000")).ok();
        let shown = |what: &str| cli.run(&format!("inspect -f {{{{.{what}}}}} one")).ok().trim().to_owned();
        let (pid, holder) = (shown("State.Pid"), shown("NetworkSettings.SandboxKey"));
        assert!(
            Command::new("ip").args(["link", "del", "berth0"]).status().is_ok_and(|status| status.success())
        );
        rustix::mount::unmount(&holder, rustix::mount::UnmountFlags::DETACH).expect("it is held");
        let number = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("it has a process");
        rustix::process::kill_process(number, rustix::process::Signal::KILL).expect("it runs");
        wait::soon("the container to have its address again", || {
            let seen = cli.run("exec one ip -4 addr show eth0").outcome();
            shown("State.Pid") != pid && seen.stdout_text().contains("10.4.0.2/24")
        });
        cli.run("rm -f one").ok();
    });
}

#[test]
fn pruning_leaves_the_containers_of_other_namespaces_alone() {
    on_a_host(|cli| {
        // Its name begins as that of the namespace where is pruned.
        let other = format!("{}-other", cli.daemon().tag());
        let there = |line: &str| cli.berth().args(["-n", &other]).line(line);
        there("load -i").arg(cli.path("busybox.tar")).ok();
        there(&format!("run -d --network bridge --name one {IMAGE} sleep 1000")).ok();
        cli.run("network prune -f").ok();
        assert!(there("network inspect bridge").ok().contains("10.4.0.2/24"));
        there("restart -t 0 one").ok();
        assert!(there("exec one ip -4 addr show eth0").ok().contains("10.4.0.2/24"));
        there("rm -f one").ok();
        assert!(!cli.run("network inspect bridge").ok().contains("10.4.0.2/24"));
    });
}
