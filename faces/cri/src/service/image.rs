//! `runtime.v1.ImageService`.

use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use proto::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use super::{Answers, ok};
use crate::Cri;
use crate::image::Present;

/// Images in one message of a stream: what containerd sends at once.
const BLOCK: usize = 100;

/// The service.
pub(crate) struct Image(pub(crate) Arc<Cri>);

impl Image {
    /// The images that pass a filter: all of them, or the one that it names.
    async fn filtered(&self, filter: Option<proto::ImageFilter>) -> Result<Vec<Present>, Status> {
        match named(filter.and_then(|filter| filter.image)).as_str() {
            "" => ok(self.0.present().await),
            name => ok(self.0.find(name).await).map(|found| found.into_iter().collect()),
        }
    }
}

fn named(image: Option<proto::ImageSpec>) -> String {
    image.unwrap_or_default().image
}

#[tonic::async_trait]
impl ImageService for Image {
    async fn list_images(
        &self,
        request: Request<proto::ListImagesRequest>,
    ) -> Result<Response<proto::ListImagesResponse>, Status> {
        let images = self.filtered(request.into_inner().filter).await?;
        Ok(Response::new(proto::ListImagesResponse { images: images.iter().map(Present::wire).collect() }))
    }

    type StreamImagesStream = Answers<proto::StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<proto::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.filtered(request.into_inner().filter).await?;
        let blocks: Vec<_> = images
            .chunks(BLOCK)
            .map(|block| {
                Ok(proto::StreamImagesResponse { images: block.iter().map(Present::wire).collect() })
            })
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(blocks))))
    }

    async fn image_status(
        &self,
        request: Request<proto::ImageStatusRequest>,
    ) -> Result<Response<proto::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        // An image that is not there is an answer, not an error.
        let Some(image) = ok(self.0.find(&named(request.image)).await)? else {
            return Ok(Response::new(proto::ImageStatusResponse::default()));
        };
        let info = request.verbose.then(|| ("info".to_owned(), image.info()));
        Ok(Response::new(proto::ImageStatusResponse {
            image: Some(image.wire()),
            info: info.into_iter().collect(),
        }))
    }

    async fn pull_image(
        &self,
        request: Request<proto::PullImageRequest>,
    ) -> Result<Response<proto::PullImageResponse>, Status> {
        let proto::PullImageRequest { image, auth, .. } = request.into_inner();
        let id = ok(self.0.pull(&named(image), auth).await)?;
        Ok(Response::new(proto::PullImageResponse { image_ref: id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<proto::RemoveImageRequest>,
    ) -> Result<Response<proto::RemoveImageResponse>, Status> {
        ok(self.0.remove(&named(request.into_inner().image)).await)?;
        Ok(Response::new(proto::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<proto::ImageFsInfoRequest>,
    ) -> Result<Response<proto::ImageFsInfoResponse>, Status> {
        let usage = ok(self.0.image_usage().await)?;
        Ok(Response::new(proto::ImageFsInfoResponse {
            image_filesystems: vec![usage],
            container_filesystems: Vec::new(),
        }))
    }
}
