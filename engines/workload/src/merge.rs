//! What an image says and what the user says, as one.

use std::collections::BTreeMap;

use berth_oci::image::ProcessConfig;

use crate::Config;
use crate::spec::environment_merge;

/// Fills in what the user left open. A user's entry point takes the image's arguments away, as they belong to
/// the image's own; labels of the image never beat the user's.
pub(crate) fn with_image(config: &mut Config, image: &ProcessConfig) {
    if config.entrypoint.is_none() {
        if config.cmd.is_none() {
            config.cmd.clone_from(&image.cmd);
        }
        config.entrypoint.clone_from(&image.entrypoint);
    }
    // `--entrypoint ""` takes the image's away.
    if config.entrypoint.as_ref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
        config.entrypoint = None;
    }
    let mut env = image.env.clone();
    environment_merge(&mut env, &config.env);
    config.env = env;
    for (own, from_image) in [(&mut config.working_dir, &image.working_dir), (&mut config.user, &image.user)]
    {
        if own.is_empty() {
            own.clone_from(from_image);
        }
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal.clone().unwrap_or_default();
    }
    let mut labels: BTreeMap<String, String> = image.labels.clone();
    labels.retain(|key, _| !crate::labels::is_reserved(key));
    labels.append(&mut config.labels);
    config.labels = labels;
    config.exposed_ports.extend(image.exposed_ports.clone());
    if !image.volumes.is_empty() {
        config.volumes.get_or_insert_default().extend(image.volumes.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split(' ').map(str::to_owned).collect())
    }

    fn image() -> ProcessConfig {
        ProcessConfig {
            entrypoint: words("/init"),
            cmd: words("serve now"),
            env: vec!["A=1".into(), "B=2".into()],
            user: "web".into(),
            labels: BTreeMap::from([
                ("a".to_owned(), "image".to_owned()),
                ("containerd.io/restart.loguri".to_owned(), "binary:///bin/sh".to_owned()),
            ]),
            ..ProcessConfig::default()
        }
    }

    fn merged(config: Config) -> Config {
        let mut config = config;
        with_image(&mut config, &image());
        config
    }

    #[test]
    fn commands_are_put_together_as_docker_does() {
        let command = |config: Config| {
            let config = merged(config);
            let words = config.entrypoint.into_iter().flatten().chain(config.cmd.into_iter().flatten());
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(command(Config::default()), "/init serve now");
        assert_eq!(command(Config { cmd: words("other"), ..Config::default() }), "/init other");
        assert_eq!(command(Config { entrypoint: words("/x"), ..Config::default() }), "/x");
        let none = Config { entrypoint: Some(vec![String::new()]), cmd: words("sh"), ..Config::default() };
        assert_eq!(command(none), "sh");
    }

    #[test]
    fn the_user_wins_and_reserved_labels_of_an_image_are_dropped() {
        let config = merged(Config {
            env: vec!["B=3".into()],
            labels: BTreeMap::from([("a".to_owned(), "user".to_owned())]),
            ..Config::default()
        });
        assert_eq!(config.env, ["A=1", "B=3"]);
        assert_eq!(config.user, "web");
        assert_eq!(config.labels, BTreeMap::from([("a".to_owned(), "user".to_owned())]));
    }
}
