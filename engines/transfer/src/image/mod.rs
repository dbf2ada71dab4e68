//! Images as they stand in content: their parts, sizes and history; names; and new images from containers.

mod commit;
mod parts;
mod record;

pub use commit::{Commit, commit};
pub use parts::{ImageSizes, Loaded, Step, config, history, load, sizes};
pub(crate) use parts::{config_of, platform_of};
pub use record::{delete, publish, tag};
