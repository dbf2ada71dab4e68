//! `ps`: the containers.

use berth_workload::{Row, Status, human, labels};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::table::{self, Heads};

const TABLE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const HEADS: Heads<'static> = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Size", "SIZE"),
    ("Runtime", "RUNTIME"),
    ("Platform", "PLATFORM"),
    ("Snapshotter", "SNAPSHOTTER"),
];

/// Flags of `ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show everything at full length
    #[arg(long)]
    no_trunc: bool,
    /// Show the last one, running or not
    #[arg(short, long)]
    latest: bool,
    /// Show the last ones, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
    /// Show only what passes: id=, name=, label=, status=, ancestor=, exited=, before=, since=, volume=, network=
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
}

impl Ps {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let mut rows = context.workload.list().await?;
        let all = self.all
            || self.latest
            || self.last.is_some()
            || self.filter.iter().any(|text| text.starts_with("status=") || text.starts_with("exited="));
        let filters = Filter::parse_all(&self.filter, &rows)?;
        rows.retain(|row| {
            let shown = all || matches!(row.status, Status::Running | Status::Paused | Status::Restarting);
            shown && passes(&filters, row)
        });
        if let Some(last) = self.last.or(self.latest.then_some(1)) {
            rows.truncate(last);
        }
        if self.quiet && self.format.is_none() {
            for row in &rows {
                crate::output::line(id(row, self.no_trunc))?;
            }
            return Ok(0);
        }
        let mut documents = Vec::with_capacity(rows.len());
        for row in &rows {
            let size = if self.size { Some(size_of(context, row).await) } else { None };
            let mut document = document(row, self.no_trunc, size);
            document["Ports"] = ports(context, row).into();
            documents.push(document);
        }
        let default = if self.size { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
        table::print(&documents, self.format.as_deref(), &default, HEADS)?;
        Ok(0)
    }
}

fn id(row: &Row, whole: bool) -> &str {
    let id = row.container.id.as_str();
    if whole || id.len() < 64 { id } else { &id[..12] }
}

/// The ports of a container that runs: one that does not holds them, but nobody answers there.
fn ports(context: &Context, row: &Row) -> String {
    if !matches!(row.status, Status::Running | Status::Paused) {
        return String::new();
    }
    let endpoint = context.workload.endpoint(&row.container.id).ok().flatten();
    let mut ports: Vec<String> =
        endpoint.iter().flat_map(|own| &own.ports).map(ToString::to_string).collect();
    let exposed = row.definition.config.exposed_ports.keys().filter(|port| {
        let published = format!("->{port}");
        endpoint.is_some() && !ports.iter().any(|own| own.ends_with(&published))
    });
    let exposed: Vec<String> = exposed.cloned().collect();
    ports.extend(exposed);
    ports.join(", ")
}

async fn size_of(context: &Context, row: &Row) -> String {
    let found = berth_workload::Found { container: row.container.clone() };
    let size = context.workload.describe(&found, true).await.ok().and_then(|document| document.size_rw);
    size.map_or_else(|| "N/A".to_owned(), |size| human::size(size, 3))
}

/// One container as templates see it.
pub(crate) fn document(row: &Row, whole: bool, size: Option<String>) -> Value {
    let command = if whole { row.command() } else { human::ellipsis(&row.command(), 20) };
    let mounts: Vec<String> = row
        .definition
        .mounts
        .iter()
        .map(|point| {
            let name = if point.name.is_empty() { &point.source } else { &point.name };
            if whole { name.clone() } else { human::ellipsis(name, 15) }
        })
        .collect();
    let volumes = row.definition.mounts.iter().filter(|point| !point.name.is_empty()).count();
    let own = row.container.labels.iter().filter(|(key, _)| !labels::is_reserved(key));
    let own: Vec<String> = own.map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "ID": id(row, whole),
        "Image": row.definition.config.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": human::created_at(row.container.created_at),
        "RunningFor": human::ago(row.container.created_at),
        "Status": row.status_text(),
        "State": row.status.word(),
        "Ports": "",
        "Names": row.name(),
        "Labels": own.join(","),
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.to_string(),
        "Networks": row.definition.host.network_name(),
        "Size": size.unwrap_or_else(|| "0B".to_owned()),
        "Runtime": row.container.runtime.name,
        "Platform": row.container.labels.get(labels::PLATFORM).cloned().unwrap_or_default(),
        "Snapshotter": row.container.snapshotter,
    })
}

/// One condition of `--filter`.
enum Filter {
    Id(String),
    Name(String),
    Label(String, Option<String>),
    Status(String),
    Ancestor(String),
    Exited(u32),
    Before(std::time::SystemTime),
    Since(std::time::SystemTime),
    Volume(String),
    Network(String),
}

impl Filter {
    fn parse_all(texts: &[String], rows: &[Row]) -> Result<Vec<Self>, Failure> {
        texts.iter().map(|text| Self::parse(text, rows)).collect()
    }

    fn parse(text: &str, rows: &[Row]) -> Result<Self, Failure> {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Failure::new(format!("invalid argument \"{text}\" for --filter: expected KEY=VALUE"))
        })?;
        let value = value.to_owned();
        let moment = |name: &str| {
            let row =
                rows.iter().find(|row| row.container.id.as_str().starts_with(name) || row.name() == name);
            row.map(|row| row.container.created_at)
                .ok_or_else(|| Failure::new(format!("No such container: {name}")))
        };
        Ok(match key {
            "id" => Self::Id(value),
            "name" => Self::Name(value),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value, None),
            },
            "status"
                if ["created", "running", "paused", "restarting", "exited", "removing", "dead"]
                    .contains(&value.as_str()) =>
            {
                Self::Status(value)
            }
            "ancestor" => Self::Ancestor(value),
            "exited" => Self::Exited(
                value.parse().map_err(|_| Failure::new(format!("invalid filter 'exited={value}'")))?,
            ),
            "before" => Self::Before(moment(&value)?),
            "since" => Self::Since(moment(&value)?),
            "volume" => Self::Volume(value),
            "network" => Self::Network(value),
            _ => return Err(Failure::new(format!("invalid filter '{text}'"))),
        })
    }

    fn holds(&self, row: &Row) -> bool {
        match self {
            Self::Id(id) => row.container.id.as_str().contains(id.as_str()),
            Self::Name(name) => row.name().contains(name.trim_matches(['^', '$', '/'])),
            Self::Label(key, value) => row
                .container
                .labels
                .get(key)
                .is_some_and(|own| value.as_ref().is_none_or(|value| value == own)),
            Self::Status(status) => row.status.word() == status,
            Self::Ancestor(image) => {
                let own = &row.definition.config.image;
                own == image
                    || row.container.image == *image
                    || own.split(':').next() == Some(image.as_str())
                    || row.definition.image_id.trim_start_matches("sha256:").starts_with(image.as_str())
            }
            Self::Exited(code) => {
                row.status == Status::Exited
                    && row.task.as_ref().and_then(|task| task.exit).is_some_and(|exit| exit.status == *code)
            }
            Self::Before(time) => row.container.created_at < *time,
            Self::Since(time) => row.container.created_at > *time,
            Self::Volume(name) => row
                .definition
                .mounts
                .iter()
                .any(|point| point.name == *name || point.destination == *name || point.source == *name),
            Self::Network(name) => row.definition.host.network_name() == name,
        }
    }

    fn key(&self) -> std::mem::Discriminant<Self> {
        std::mem::discriminant(self)
    }
}

/// Filters of one key are alternatives, but for labels; different keys all have to hold.
fn passes(filters: &[Filter], row: &Row) -> bool {
    filters.iter().all(|filter| {
        if matches!(filter, Filter::Label(..)) {
            return filter.holds(row);
        }
        filters.iter().filter(|other| other.key() == filter.key()).any(|other| other.holds(row))
    })
}
