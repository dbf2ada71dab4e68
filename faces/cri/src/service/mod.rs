//! The two services: from the wire to a method of [`Cri`](crate::Cri) and back, and nothing else.

mod image;
mod runtime;

use std::pin::Pin;

use futures::Stream;
use tonic::Status;

pub(crate) use image::Image;
pub(crate) use runtime::Runtime;

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A value or the status of an error, for `?`.
fn ok<T>(result: berth_types::Result<T>) -> Result<T, Status> {
    result.map_err(|error| berth_proto::status::answer(&error))
}
