//! `history`: how an image came to be.

use berth_oci::image::PlatformMatch;
use berth_workload::human;
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Outcome;
use crate::output::table;

const TABLE: &str = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const HEADS: table::Heads<'static> = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// Flags of `history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show sizes and dates for people
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        action = clap::ArgAction::Set)]
    human: bool,
    /// Show everything at full length
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// The image
    image: String,
}

impl History {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let image = context.image(&self.image).await?;
        let content = context.client.content(context.scope());
        let platform = PlatformMatch::only(&context.workload.settings().platform);
        let loaded = berth_transfer::load(&*content, &image.target, &platform).await?;
        let mut steps = berth_transfer::history(&loaded);
        steps.reverse();
        let mut rows: Vec<Value> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let id = if at == 0 {
                if self.no_trunc {
                    image.target.digest.to_string()
                } else {
                    image.target.digest.short().to_owned()
                }
            } else {
                "<missing>".to_owned()
            };
            let created =
                step.history.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let created = created.and_then(|time| std::time::SystemTime::try_from(time).ok());
            let by = step.history.created_by.clone().unwrap_or_default();
            let size = step.layer.as_ref().map_or(0, |layer| layer.size);
            rows.push(json!({
                "ID": id,
                "CreatedSince": created.map_or_else(|| "N/A".to_owned(), human::ago),
                "CreatedAt": created.map(human::timestamp).unwrap_or_default(),
                "CreatedBy": if self.no_trunc { by } else { human::ellipsis(&by, 45) },
                "Size": if self.human { human::size(size, 3) } else { size.to_string() },
                "Comment": step.history.comment.clone().unwrap_or_default(),
            }));
        }
        let format = if self.quiet { Some("{{.ID}}") } else { self.format.as_deref() };
        table::print(&rows, format, TABLE, HEADS)?;
        Ok(0)
    }
}
