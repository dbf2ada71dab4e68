//! The commands about registries.

use e2e::Cli;
use testkit::registry::{Reply, Standin, serve};

#[test]
fn explain_shows_every_host_its_credentials_and_its_answer() {
    let Ok(cli) = Cli::start() else { return };
    let image =
        testkit::image::Image::new("a/b:1").layer(testkit::image::Layer::new().file("x", b"1", 0o644));
    let mirror = Standin::start(|_| {
        Reply::new(503, r#"{"errors":[{"code":"BUSY","message":"later"}]}"#).header("Retry-After", "0")
    });
    let own = Standin::start(move |request| serve(&image, "a/b", "1", request));
    let hosts = format!(
        "server = 'http://{}'\n[host.'http://{}']\n  capabilities = ['pull', 'resolve']\n",
        own.address(),
        mirror.address()
    );
    let folder = cli.path("certs.d").join(own.address());
    std::fs::create_dir_all(&folder).expect("the scratch folder takes a folder");
    std::fs::write(folder.join("hosts.toml"), hosts).expect("the folder takes a file");
    let docker = cli.path("docker");
    std::fs::create_dir_all(&docker).expect("the scratch folder takes a folder");
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6aHVudGVyMg=="}}}}}}"#, own.address());
    std::fs::write(docker.join("config.json"), auths).expect("the folder takes a file");
    let text = cli
        .run("registry explain --hosts-dir")
        .arg(cli.path("certs.d"))
        .arg(format!("{}/a/b:1", own.address()))
        .env("DOCKER_CONFIG", &docker)
        .ok();
    for expected in [
        format!("1. http://{}/v2 (mirror; pull, resolve)", mirror.address()),
        "BUSY: later".to_owned(),
        format!("2. http://{}/v2 (pull, resolve, push, referrers)", own.address()),
        "hosts.toml".to_owned(),
        "user me, from".to_owned(),
        "answer       sha256:".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    cli.finish();
}
