//! What the built-in validator forbids.

use berth_types::ErrorKind;

use super::*;
use crate::proto::{
    CompoundFieldOwners, Container, LinuxContainer, OwningPlugins, PluginInstance, SecurityProfile,
};

fn enabled() -> ValidatorConfig {
    ValidatorConfig { enable: true, ..ValidatorConfig::default() }
}

fn request(owners: FieldOwners) -> ValidateContainerAdjustmentRequest {
    let plugin = PluginInstance { name: "logger".into(), index: "10".into() };
    ValidateContainerAdjustmentRequest {
        pod: Some(PodSandbox::default()),
        container: Some(Container { id: "c1".into(), name: "web".into(), ..Container::default() }),
        owners: Some(OwningPlugins { owners: [("c1".to_owned(), owners)].into() }),
        plugins: vec![plugin],
        ..Default::default()
    }
}

fn simple(field: Field) -> FieldOwners {
    FieldOwners { simple: [(field as i32, "10-a".to_owned())].into(), ..FieldOwners::default() }
}

fn entry(field: Field, key: &str) -> FieldOwners {
    let owners = CompoundFieldOwners { owners: [(key.to_owned(), "10-a".to_owned())].into() };
    FieldOwners { compound: [(field as i32, owners)].into(), ..FieldOwners::default() }
}

fn with_profile(profile: Option<ProfileType>) -> ValidateContainerAdjustmentRequest {
    let mut request = request(simple(Field::SeccompPolicy));
    let seccomp_profile =
        profile.map(|kind| SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() });
    request.container.as_mut().unwrap().linux =
        Some(LinuxContainer { seccomp_profile, ..Default::default() });
    request
}

/// Each restriction alone, and an adjustment that it is about.
fn restrictions() -> Vec<(ValidatorConfig, ValidateContainerAdjustmentRequest)> {
    let config = |set: fn(&mut ValidatorConfig)| {
        let mut config = enabled();
        set(&mut config);
        config
    };
    vec![
        (config(|c| c.reject_oci_hook_adjustment = true), request(simple(Field::OciHooks))),
        (config(|c| c.reject_namespace_adjustment = true), request(entry(Field::Namespace, "network"))),
        (config(|c| c.reject_sysctl_adjustment = true), request(entry(Field::Sysctl, "kernel.x"))),
        (config(|c| c.reject_unconfined_seccomp_adjustment = true), with_profile(None)),
        (
            config(|c| c.reject_runtime_default_seccomp_adjustment = true),
            with_profile(Some(ProfileType::RuntimeDefault)),
        ),
        (config(|c| c.reject_custom_seccomp_adjustment = true), with_profile(Some(ProfileType::Localhost))),
    ]
}

#[test]
fn each_restriction_refuses_its_own_adjustment_and_no_other() {
    let cases = restrictions();
    for (at, (config, _)) in cases.iter().enumerate() {
        for (of, (_, request)) in cases.iter().enumerate() {
            let verdict = config.validate(request);
            assert_eq!(verdict.is_err(), at == of, "restriction {at}, adjustment {of}: {verdict:?}");
        }
        let disabled = ValidatorConfig { enable: false, ..config.clone() };
        disabled.validate(&cases[at].1).unwrap();
    }
}

#[test]
fn the_refusal_names_the_plugin() {
    let config = ValidatorConfig { reject_oci_hook_adjustment: true, ..enabled() };
    let error = config.validate(&request(simple(Field::OciHooks))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains("10-a") && error.message().contains("hooks"), "{error}");
}

#[test]
fn a_required_plugin_is_known_by_its_name_with_or_without_index() {
    for (required, there) in [("logger", true), ("10-logger", true), ("20-logger", false), ("other", false)] {
        let config = ValidatorConfig { required_plugins: vec![required.to_owned()], ..enabled() };
        let verdict = config.validate(&request(FieldOwners::default()));
        assert_eq!(verdict.is_ok(), there, "{required}: {verdict:?}");
    }
}

fn annotated(pairs: &[(&str, &str)]) -> ValidateContainerAdjustmentRequest {
    let mut request = request(FieldOwners::default());
    let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    request.pod.as_mut().unwrap().annotations = pairs.iter().map(own).collect();
    request
}

#[test]
fn a_pod_can_name_plugins_that_its_containers_need() {
    for (value, there) in [
        ("[logger]", true),
        ("[ \"logger\", 'ghost' ]", false),
        ("- logger\n- 10-logger\n", true),
        ("- ghost", false),
        ("[]", true),
    ] {
        let verdict = enabled().validate(&annotated(&[(REQUIRED, value)]));
        assert_eq!(verdict.is_ok(), there, "{value}: {verdict:?}");
    }
    let error = enabled().validate(&annotated(&[(REQUIRED, "logger")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn the_containers_own_annotation_outranks_the_pods() {
    let own = format!("{REQUIRED}/container.web");
    enabled().validate(&annotated(&[(REQUIRED, "[ghost]"), (&own, "[logger]")])).unwrap();
    let pods = format!("{REQUIRED}/pod");
    assert!(enabled().validate(&annotated(&[(REQUIRED, "[logger]"), (&pods, "[ghost]")])).is_err());
    let others = format!("{REQUIRED}/container.db");
    enabled().validate(&annotated(&[(&others, "[ghost]")])).unwrap();
}

#[test]
fn a_pod_can_do_without_required_plugins_when_that_is_configured() {
    let annotation = "tolerate.example.com";
    let mut config = ValidatorConfig { required_plugins: vec!["ghost".to_owned()], ..enabled() };
    assert!(
        config.validate(&annotated(&[(annotation, "true")])).is_err(),
        "the annotation is not configured"
    );
    config.tolerate_missing_plugins_annotation = annotation.to_owned();
    config.validate(&annotated(&[(annotation, "true")])).unwrap();
    assert!(config.validate(&annotated(&[(annotation, "false")])).is_err());
    let error = config.validate(&annotated(&[(annotation, "maybe")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}
