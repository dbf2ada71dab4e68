//! What the environment says of traces: the variables of OpenTelemetry that containerd 2.3 heeds. The library reads the
//! rest of them itself (headers, timeout, sampler, attributes of the resource).

use super::tls::Tls;

/// The collector that is wanted; the library reads its address itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collector {
    pub(super) protocol: Protocol,
    pub(super) tls: Tls,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    On(Collector),
    /// With the reason.
    Off(String),
    /// What is set makes no sense; the daemon runs without.
    Wrong(String),
}

/// Reads the variables.
pub(super) fn wanted(variable: impl Fn(&str) -> Option<String>) -> Wanted {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let first = |names: [&str; 2]| names.into_iter().find_map(set);
    match set("OTEL_SDK_DISABLED").as_deref() {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => {
            return Wanted::Off("tracing disabled by env OTEL_SDK_DISABLED".to_owned());
        }
        None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => {}
        Some(other) => return Wanted::Wrong(format!("invalid value for OTEL_SDK_DISABLED: {other:?}")),
    }
    if first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]).is_none() {
        return Wanted::Off("tracing endpoint not configured".to_owned());
    }
    if let Some(other) = set("OTEL_TRACES_EXPORTER").filter(|exporter| exporter != "otlp") {
        return Wanted::Wrong(format!("unsupported traces exporter {other:?}: otlp is known"));
    }
    let protocol = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
    let protocol = match protocol.as_deref() {
        None | Some("http/protobuf") => Protocol::Http,
        Some("grpc") => Protocol::Grpc,
        Some(other) => {
            let why = format!("OpenTelemetry protocol {other:?}: http/protobuf and grpc are known");
            return Wanted::Wrong(why);
        }
    };
    match Tls::read(&variable) {
        Ok(tls) => Wanted::On(Collector { protocol, tls }),
        Err(why) => Wanted::Wrong(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_sent_where_the_environment_says_so_as_with_containerd() {
        let of = |variables: &[(&str, &str)]| {
            wanted(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let on = |protocol| Wanted::On(Collector { protocol, tls: Tls::default() });
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert!(matches!(of(&[]), Wanted::Off(why) if why.contains("not configured")));
        assert_eq!(of(&[endpoint]), on(Protocol::Http));
        assert_eq!(of(&[endpoint, grpc, ("OTEL_TRACES_EXPORTER", "otlp")]), on(Protocol::Grpc));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h"), grpc]), on(Protocol::Grpc));
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert_eq!(of(&[endpoint, grpc, of_traces]), on(Protocol::Http));
        assert!(matches!(of(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), Wanted::Off(_)));
        assert_eq!(of(&[endpoint, ("OTEL_SDK_DISABLED", "false")]), on(Protocol::Http));
        for wrong in [
            ("OTEL_SDK_DISABLED", "maybe"),
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ] {
            assert!(matches!(of(&[endpoint, wrong]), Wanted::Wrong(_)), "{wrong:?}");
        }
    }
}
