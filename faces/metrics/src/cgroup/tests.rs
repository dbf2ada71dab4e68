use berth_proto::io::containerd::cgroups as proto;
use berth_types::Any;

use super::*;

const TASK: Task<'_> = Task { container: "web", namespace: "k8s.io", runtime: "io.containerd.runc.v2" };

fn page(kind: &str, message: &impl prost::Message) -> String {
    let mut page = Page::default();
    collect(&mut page, TASK, &Any::new(kind, message.encode_to_vec()));
    page.render()
}

#[test]
fn figures_of_version_1_have_containerds_names_and_labels() {
    let text = page(
        "io.containerd.cgroups.v1.Metrics",
        &proto::v1::Metrics {
            cpu: Some(proto::v1::CpuStat {
                usage: Some(proto::v1::CpuUsage { total: 7, per_cpu: vec![3, 4], ..Default::default() }),
                throttling: None,
            }),
            memory: Some(proto::v1::MemoryStat {
                rss: 4096,
                usage: Some(proto::v1::MemoryEntry { limit: 100, ..Default::default() }),
                ..Default::default()
            }),
            blkio: Some(proto::v1::BlkIoStat {
                io_service_bytes_recursive: vec![proto::v1::BlkIoEntry {
                    op: "Read".to_owned(),
                    device: "/dev/sda".to_owned(),
                    major: 8,
                    minor: 0,
                    value: 512,
                }],
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    let labels = "namespace=\"k8s.io\",runtime=\"io.containerd.runc.v2\"";
    for line in [
        format!("container_cpu_total_nanoseconds{{container_id=\"web\",{labels}}} 7\n"),
        format!("container_per_cpu_nanoseconds{{container_id=\"web\",cpu=\"1\",{labels}}} 4\n"),
        format!("container_memory_rss_bytes{{container_id=\"web\",{labels}}} 4096\n"),
        format!("container_memory_usage_limit_bytes{{container_id=\"web\",{labels}}} 100\n"),
        "container_blkio_io_service_bytes_recursive_bytes{container_id=\"web\",device=\"/dev/sda\",\
         major=\"8\",minor=\"0\",namespace=\"k8s.io\",op=\"Read\",runtime=\"io.containerd.runc.v2\"} 512\n"
            .to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("container_pids"), "a controller that is not there has no figures: {text}");
}

#[test]
fn figures_of_version_2_have_containerds_names() {
    let text = page(
        "io.containerd.cgroups.v2.Metrics",
        &proto::v2::Metrics {
            cpu: Some(proto::v2::CpuStat { usage_usec: 9, ..Default::default() }),
            memory_events: Some(proto::v2::MemoryEvents { oom: 2, ..Default::default() }),
            ..Default::default()
        },
    );
    for name in ["container_cpu_usage_usec_microseconds", "container_memory_oom_total"] {
        assert!(text.contains(&format!("# TYPE {name} gauge\n")), "{name} is missing in\n{text}");
    }
}

#[test]
fn what_is_no_message_has_no_figures() {
    let mut page = Page::default();
    collect(&mut page, TASK, &Any::new("io.containerd.cgroups.v1.Metrics", vec![0xff; 9]));
    collect(&mut page, TASK, &Any::new("another.Kind", Vec::new()));
    assert_eq!(page.render(), "");
}
