//! `image convert`: the same image with its layers made anew.

use std::path::{Path, PathBuf};

use berth_archive::Compression;
use berth_oci::image::{PlatformMatch, parse_platform};
use berth_stargz::{Format, Making};
use berth_transfer::{Conversion, Indexing, Layers, Platforms, Types};
use clap::{ArgGroup, Args, ValueEnum};
use serde::Deserialize;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Flags of `image convert`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("into").args(["zstd", "gzip", "uncompress", "estargz", "zstdchunked", "erofs", "soci"])))]
pub(crate) struct Convert {
    /// Layers become zstd
    #[arg(long)]
    zstd: bool,
    /// Layers become gzip
    #[arg(long)]
    gzip: bool,
    /// Layers become plain tars
    #[arg(long)]
    uncompress: bool,
    /// Layers become eStargz: gzip with a table of contents, for lazy pulling
    #[arg(long)]
    estargz: bool,
    /// Layers become zstd:chunked: zstd with a table of contents, for lazy pulling
    #[arg(long)]
    zstdchunked: bool,
    /// Layers become EROFS images, which the erofs snapshotter mounts as they are: `raw`, or `zstd` for images that are
    /// compressed as a whole on their way
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "raw")]
    erofs: Option<Form>,
    /// Layers stay as they are and a SOCI index is put beside them, for lazy pulling
    #[arg(long)]
    soci: bool,
    #[command(flatten)]
    table: TableOptions,
    #[command(flatten)]
    index: IndexOptions,
    /// Docker's types of documents and layers become OCI's
    #[arg(long)]
    oci: bool,
    /// Of a list, the image of this platform alone
    #[arg(long, conflicts_with = "all_platforms")]
    platform: Vec<String>,
    /// Of a list, every image that is here (that is so anyway)
    #[arg(long)]
    all_platforms: bool,
    /// The image
    source: String,
    /// The name of the new one
    target: String,
}

/// How EROFS images go over the wire, named as `ctr` has them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    Raw,
    Zstd,
}

/// Flags about tables of contents, named as nerdctl has them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables of contents")]
struct TableOptions {
    /// Files that come first: JSON lines with a path, as `ctr-remote` and `berth image optimize` write them
    #[arg(long, value_name = "FILE", alias = "zstdchunked-record-in")]
    estargz_record_in: Option<PathBuf>,
    /// 0 to 9
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(0..=9))]
    estargz_compression_level: Option<u32>,
    /// 1 to 22
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=22))]
    zstdchunked_compression_level: Option<u32>,
    /// Bytes of a file that are fetched and verified as one; 0 means 4 MiB
    #[arg(long, value_name = "BYTES", default_value_t = 0, alias = "zstdchunked-chunk-size")]
    estargz_chunk_size: u64,
    /// Bytes up to which small files share a compressed stream
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    estargz_min_chunk_size: u64,
}

/// Flags about SOCI indexes, named as nerdctl has them.
#[derive(Debug, Args)]
#[command(next_help_heading = "SOCI indexes")]
struct IndexOptions {
    /// Bytes that a layer has at least to be indexed
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 20)]
    soci_min_layer_size: u64,
    /// Bytes, uncompressed, that are fetched and verified as one
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    soci_span_size: u64,
}

impl Convert {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        if self.soci {
            return self.indexed(context).await;
        }
        let conversion = Conversion {
            layers: self.layers()?,
            types: if self.oci { Types::Oci } else { Types::Kept },
            platforms: self.platforms()?,
        };
        let source = context.image(&self.source).await?.name;
        let target = super::manifest::name(&self.target)?;
        let made = berth_transfer::convert(&*context.client, context.scope(), &source, &target, &conversion);
        output::line(made.await?.target.digest.as_str())?;
        Ok(0)
    }

    async fn indexed(self, context: &Context) -> Outcome {
        let indexing = Indexing {
            span_size: self.index.soci_span_size,
            min_layer_size: self.index.soci_min_layer_size,
            platforms: self.platforms()?,
            ..Indexing::new(concat!("berth ", env!("CARGO_PKG_VERSION")))
        };
        let source = context.image(&self.source).await?.name;
        let target = super::manifest::name(&self.target)?;
        let made = berth_transfer::index(&*context.client, context.scope(), &source, &target, &indexing);
        output::line(made.await?.target.digest.as_str())?;
        Ok(0)
    }

    fn layers(&self) -> Result<Layers, Failure> {
        let table = &self.table;
        if let Some(form) = self.erofs {
            return Ok(Layers::Erofs(match form {
                Form::Raw => Compression::Plain,
                Form::Zstd => Compression::Zstd,
            }));
        }
        Ok(match (self.gzip, self.zstd, self.uncompress, self.estargz, self.zstdchunked) {
            (true, ..) => Layers::Compressed(Compression::Gzip),
            (_, true, ..) => Layers::Compressed(Compression::Zstd),
            (_, _, true, ..) => Layers::Compressed(Compression::Plain),
            (_, _, _, true, _) => {
                Layers::Tabled(table.making(Format::Gzip, table.estargz_compression_level)?)
            }
            (.., true) => Layers::Tabled(table.making(Format::Zstd, table.zstdchunked_compression_level)?),
            _ => {
                let ways = "--zstd, --gzip, --uncompress, --estargz, --zstdchunked, --erofs or --soci";
                return Err(Failure::new(format!("into what? {ways}")));
            }
        })
    }

    fn platforms(&self) -> Result<Platforms, Failure> {
        if self.platform.is_empty() {
            return Ok(Platforms::All);
        }
        let wanted: Result<Vec<_>, _> = self.platform.iter().map(|text| parse_platform(text)).collect();
        Ok(Platforms::Matching(PlatformMatch::any(&wanted?)))
    }
}

impl TableOptions {
    fn making(&self, format: Format, level: Option<u32>) -> Result<Making, Failure> {
        Ok(Making {
            level,
            chunk_size: self.estargz_chunk_size,
            min_chunk_size: self.estargz_min_chunk_size,
            first: self.estargz_record_in.as_deref().map_or(Ok(Vec::new()), recorded)?,
            ..Making::new(format)
        })
    }
}

/// A line of a record.
#[derive(Deserialize)]
struct Line {
    path: String,
}

/// The paths of a record, in their order.
fn recorded(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let path = |(number, line): (usize, &str)| {
        let line: Line = serde_json::from_str(line).map_err(|error| {
            let text = format!("line {} of {} is not {{\"path\": …}}: {error}", number + 1, file.display());
            Failure::new(text)
        })?;
        Ok(line.path.into_bytes())
    };
    lines.map(path).collect()
}
