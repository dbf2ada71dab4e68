//! The commands about registries.

use e2e::{Cli, IMAGE};
use testkit::registry::{DockerRegistry, Reply, Standin, serve};

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

#[test]
fn a_login_is_kept_used_and_forgotten() {
    let (Ok(cli), Ok(registry)) = (Cli::start(), DockerRegistry::with_login()) else { return };
    let (docker, (user, password)) = (cli.path("docker"), registry.login());
    let run = |line: &str| cli.run(line).env("DOCKER_CONFIG", &docker);
    let name = format!("{}/team/app:1", registry.address());
    run(&format!("tag {IMAGE} {name}")).ok();
    let complaint = run(&format!("push -q {name}")).fails();
    assert!(complaint.contains("berth login"), "{complaint}");

    let login = format!("login -u {user} --password-stdin {}", registry.address());
    let complaint = run(&login).input("wrong\n").fails();
    assert!(complaint.contains("credentials"), "{complaint}");
    assert!(!docker.join("config.json").exists(), "what a registry refuses is not kept");
    let complaint = run(&format!("login -u {user} -p {password} {}", registry.address())).fails();
    assert!(complaint.contains("--password-stdin") && !complaint.contains(password), "{complaint}");
    assert_eq!(run(&login).input(format!("{password}\n")).ok(), "Login Succeeded\n");
    run(&format!("push -q {name}")).ok();
    let found = run(&format!("search {}/app", registry.address())).ok();
    assert!(found.contains(&format!("{}/team/app", registry.address())), "{found}");

    let address = registry.address();
    assert_eq!(run(&format!("logout {address}")).ok(), format!("Removing login credentials for {address}\n"));
    run(&format!("pull -q {name}")).fails();
    assert_eq!(run(&format!("logout {address}")).ok(), format!("Not logged in to {address}\n"));
    cli.finish();
}

#[test]
fn a_credential_helper_keeps_a_login_if_the_configuration_names_one() {
    let (Ok(cli), Ok(registry)) = (Cli::start(), DockerRegistry::with_login()) else { return };
    let (docker, (user, password)) = (cli.path("docker"), registry.login());
    let (programs, kept) = (cli.path("programs"), cli.path("kept"));
    for folder in [&docker, &programs] {
        std::fs::create_dir_all(folder).expect("the scratch folder takes a folder");
    }
    std::fs::write(docker.join("config.json"), r#"{"credsStore":"test"}"#).expect("the folder takes a file");
    let helper = programs.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {0};;\nerase) rm {0};;\nget) test -f {0} && exec cat {0}; echo credentials not found in native keychain; exit 1;;\nesac\n",
        kept.display()
    );
    std::fs::write(&helper, script).expect("the folder takes a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&helper, mode).expect("it is our file");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let run = |line: &str| cli.run(line).env("DOCKER_CONFIG", &docker).env("PATH", &path);
    let address = registry.address();
    run(&format!("login -u {user} --password-stdin {address}")).input(password).ok();
    let file = std::fs::read_to_string(docker.join("config.json")).expect("it is there");
    assert!(file.contains(&address) && !file.contains("auth\""), "no secret is in the file: {file}");
    assert!(std::fs::read_to_string(&kept).is_ok_and(|kept| kept.contains(password)));
    let name = format!("{address}/team/app:1");
    run(&format!("tag {IMAGE} {name}")).ok();
    run(&format!("push -q {name}")).ok();
    run(&format!("logout {address}")).ok();
    assert!(!kept.exists());
    cli.finish();
}

#[test]
fn lists_of_images_are_made_annotated_pushed_and_shown() {
    let (Ok(cli), Ok(registry)) = (Cli::start(), DockerRegistry::start()) else { return };
    let list = format!("{}/team/list:1", registry.address());
    let made = cli.run(&format!("manifest create {list} {IMAGE}")).ok();
    assert_eq!(made, format!("Created manifest list {list}\n"));
    let complaint = cli.run(&format!("manifest create {list} {IMAGE}")).fails();
    assert!(complaint.contains("--amend"), "{complaint}");
    cli.run(&format!("manifest create --amend {list} {IMAGE}")).ok();
    cli.run(&format!("manifest annotate --variant v9 {list} {IMAGE}")).ok();
    let digest = cli.run(&format!("manifest push --purge {list}")).ok();
    assert!(digest.starts_with("sha256:"), "{digest}");
    let shown = cli.run(&format!("manifest inspect {list}")).ok();
    let document: serde_json::Value = serde_json::from_str(&shown).expect("it is JSON");
    assert_eq!(document["manifests"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(document["manifests"][0]["platform"]["variant"], "v9");
    assert_eq!(document["manifests"][0]["platform"]["os"], "linux");
    let manifest = cli.run(&format!("manifest inspect {IMAGE}")).ok();
    assert!(manifest.contains("\"layers\""), "{manifest}");
    cli.finish();
}

#[test]
fn an_image_is_converted_to_zstd_and_back_and_still_runs() {
    let Ok(cli) = Cli::start() else { return };
    let kinds = |name: &str| cli.run(&format!("manifest inspect {name}")).ok();
    cli.run(&format!("image convert --zstd {IMAGE} berth.test/zstd:1")).ok();
    assert!(kinds("berth.test/zstd:1").contains("tar.zstd"), "{}", kinds("berth.test/zstd:1"));
    // So that nothing but the converted layers is there to run.
    cli.run(&format!("rmi {IMAGE}")).ok();
    assert_eq!(cli.run("run --rm berth.test/zstd:1 echo zstd").ok(), "zstd\n");
    cli.run("image convert --gzip berth.test/zstd:1 berth.test/gzip:1").ok();
    assert!(kinds("berth.test/gzip:1").contains("tar.gzip"));
    cli.run("rmi berth.test/zstd:1").ok();
    assert_eq!(cli.run("run --rm berth.test/gzip:1 echo gzip").ok(), "gzip\n");
    assert!(cli.run("image convert berth.test/gzip:1 x:1").fails().contains("--zstd"));
    cli.finish();
}
