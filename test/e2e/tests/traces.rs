//! Traces that go to a collector, which here is the test: over HTTP and over gRPC, beside containerd's.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use berth_proto::containerd::services::version::v1::version_client::VersionClient;
use e2e::{Node, container, pod};
use opentelemetry_proto::tonic::collector::trace::v1 as wire;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::{Daemon, Kind, need, wait};
use tonic::transport::{Certificate, Channel, Endpoint, Identity, Server, ServerTlsConfig, Uri};
use tonic::{Request, Response, Status};
use wire::trace_service_server::{TraceService, TraceServiceServer};

/// The parts that the tests' daemons have disabled.
const PARTS: [&str; 2] = ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"];

/// Every span that has come, with the service that it is of.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    fn take(&self, request: wire::ExportTraceServiceRequest) {
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = text(&attributes, "service.name");
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.lock().extend(spans.map(|span| (service.clone(), span)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, Span)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a span.
    #[track_caller]
    fn span(&self, name: &str) -> (String, Span) {
        wait::until(&format!("a span {name}"), wait::SOON, || {
            self.lock().iter().find(|(_, span)| span.name == name).cloned()
        })
    }

    /// Takes spans by HTTP; answers where.
    fn http(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has one");
        let collector = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let collector = collector.clone();
                std::thread::spawn(move || collector.converse(stream));
            }
        });
        format!("http://{address}")
    }

    /// One connection, until its peer leaves.
    fn converse(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
                match line.to_lowercase().trim_end().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().ok()?,
                    Some(("content-type", kind)) => assert_eq!(kind, "application/x-protobuf"),
                    Some(_) => {}
                    None => break,
                }
            }
            assert!(first.starts_with("POST /v1/traces "), "{first}");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            self.take(wire::ExportTraceServiceRequest::decode(body.as_slice()).expect("spans"));
            let mut stream = &stream;
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
                )
                .ok()?;
        }
    }

    /// Takes spans by gRPC; answers where.
    fn grpc(&self) -> String {
        format!("http://{}", self.serve(Server::builder()))
    }

    /// The same for those who show a certificate of an authority, over TLS.
    fn grpc_with_tls(&self, authority: &Authority) -> String {
        let (certificate, key) = authority.sign("localhost");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(authority.pem()));
        let address = self.serve(Server::builder().tls_config(tls).expect("the certificates are right"));
        format!("https://localhost:{}", address.port())
    }

    fn serve(&self, mut server: Server) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has one");
        listener.set_nonblocking(true).expect("it is a socket");
        let service = TraceServiceServer::new(self.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a thread can be started").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                // It ends with the test.
                let _ = server.add_service(service).serve_with_incoming(incoming).await;
            });
        });
        address
    }
}

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(parameters, key).expect("it can be signed"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key can be made");
        let parameters = CertificateParams::new([name.to_owned()]).expect("it is a name");
        let certificate = parameters.signed_by(&key, &self.0).expect("it can be signed");
        (certificate.pem(), key.serialize_pem())
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<wire::ExportTraceServiceRequest>,
    ) -> Result<Response<wire::ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(wire::ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone());
    match found.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

/// Starts a daemon anew that sends its traces to an address.
fn traced(daemon: &mut Daemon, address: &str, protocol: &str) {
    daemon.stop();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    daemon.enable(&variables, &PARTS);
    daemon.restart();
}

/// What of a request's span is the same with every daemon.
fn facts(span: &Span) -> (String, i32, BTreeSet<(String, String)>) {
    let attributes = span.attributes.iter().filter(|one| one.key.starts_with("rpc."));
    let attributes = attributes.map(|one| (one.key.clone(), text(&span.attributes, &one.key))).collect();
    (span.name.clone(), span.kind, attributes)
}

const LIST: &str = "containerd.services.images.v1.Images/List";
const GET: &str = "containerd.services.containers.v1.Containers/Get";

#[test]
fn requests_are_told_as_by_containerd_over_http_and_over_grpc() {
    if need::root().is_err() || need::program("ctr").is_err() {
        return;
    }
    let told = |kind: Kind, is_grpc: bool| {
        let mut daemon = Daemon::start(kind).ok()?;
        let collector = Collector::default();
        let (address, protocol) =
            if is_grpc { (collector.grpc(), "grpc") } else { (collector.http(), "http/protobuf") };
        traced(&mut daemon, &address, protocol);
        let ctr = || daemon.ctr().expect("it was looked for");
        ctr().line("images ls").ok();
        ctr().line("containers info none").outcome();
        let (service, list) = collector.span(LIST);
        let (_, get) = collector.span(GET);
        // A failure that is the client's own is no error of the daemon's.
        assert_eq!(get.status.clone().unwrap_or_default().code, 0, "{get:?}");
        let facts = (facts(&list), facts(&get));
        daemon.finish();
        Some((service, facts))
    };
    let Some((_, oracle)) = told(Kind::Containerd, false) else { return };
    for is_grpc in [false, true] {
        let (service, facts) = told(Kind::Berth, is_grpc).expect("it can be started");
        assert_eq!(facts, oracle, "grpc: {is_grpc}");
        assert_eq!(service, "berthd");
    }
}

#[test]
fn a_collector_is_spoken_to_over_tls_by_who_shows_a_certificate_and_only_when_it_is_the_one() {
    let Ok(mut daemon) = Daemon::start(Kind::Berth) else { return };
    let (authority, another) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("there is a folder");
    let file = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).expect("it can be written");
        path.to_str().expect("it is text").to_owned()
    };
    let (certificate, key) = authority.sign("daemon");
    let (certificate, key) = (file("cert.pem", certificate), file("key.pem", key));
    let (right, wrong) = (file("ca.pem", authority.pem()), file("another.pem", another.pem()));
    let collector = Collector::default();
    let address = collector.grpc_with_tls(&authority);
    for (trusted, comes) in [(&wrong, false), (&right, true)] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted.as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
        ];
        daemon.enable(&variables, &[]);
        traced(&mut daemon, &address, "grpc");
        daemon.ctr().expect("it was looked for").line("images ls").ok();
        if comes {
            collector.span(LIST);
        }
    }
    let of_images = collector.lock().iter().filter(|(_, span)| span.name == LIST).count();
    assert_eq!(of_images, 1, "spans went to a collector that nobody vouches for");
    daemon.finish();
}

#[test]
fn a_callers_span_is_the_parent_and_the_steps_of_a_pod_are_its_children() {
    Node::run(|node| {
        let collector = Collector::default();
        let address = collector.http();
        traced(&mut node.daemon, &address, "http/protobuf");
        let socket = node.daemon.address();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let asked = node.wait("an answer", async {
            let channel: Channel =
                Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
            let mut request = Request::new(());
            let parent = format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
            request.metadata_mut().insert("traceparent", parent.parse().expect("it is ASCII"));
            let answer = VersionClient::new(channel).version(request).await;
            Ok::<_, tonic::transport::Error>(answer.map(drop))
        });
        asked.expect("there is a daemon").expect("it has a version");
        let (_, span) = collector.span("containerd.services.version.v1.Version/Version");
        assert_eq!((span.trace_id, span.parent_span_id), (vec![0xab; 16], vec![0xcd; 8]));

        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let one = node.started(&id, &of, &container("one", &["sleep", "1000"])).expect("it starts");
        let (_, request) = collector.span("runtime.v1.RuntimeService/RunPodSandbox");
        let (_, run) = collector.span("cri.sandbox.run");
        let (_, network) = collector.span("cni.setup_pod_network");
        let (_, start) = collector.span("runtime.v1.RuntimeService/StartContainer");
        let (_, process) = collector.span("the start of its process");
        assert_eq!((run.parent_span_id, run.trace_id.clone()), (request.span_id, request.trace_id));
        assert_eq!(text(&run.attributes, "sandbox.id"), id);
        assert_eq!(network.trace_id, run.trace_id);
        assert_eq!(process.trace_id, start.trace_id);
        assert_ne!(process.trace_id, run.trace_id);
        node.remove_container(&one).expect("it goes");
        node.away(&id);
    });
}

#[test]
fn a_collector_that_is_not_there_holds_nobody_up_and_settings_without_sense_are_told() {
    let Ok(mut daemon) = Daemon::start(Kind::Berth) else { return };
    traced(&mut daemon, "http://127.0.0.1:9", "grpc");
    daemon.ctr().expect("it was looked for").line("images ls").ok();
    daemon.stop();
    daemon.enable(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], &[]);
    daemon.restart();
    let plugins = daemon.ctr().expect("it was looked for").line("plugins ls").ok();
    let line = plugins.lines().find(|line| line.contains("otlp")).unwrap_or_default();
    assert!(line.contains("error"), "{plugins}");
    assert!(daemon.log().contains("http/json"), "{}", daemon.log_tail());
    daemon.finish();
}
