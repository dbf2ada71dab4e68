//! `containerd.services.images.v1.Images`.

use berth_core::Deletion;
use berth_proto as proto;
use berth_types::filter::Filters;
use berth_types::{Digest, FieldMask, Image};
use proto::containerd::services::images::v1::{self as wire, images_server};
use proto::convert::from_field_mask;
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Shared, existing, ok, required};

/// The service.
pub(crate) struct Images(pub(crate) Shared);

/// The image of a request, which needs a name.
fn named(image: Option<wire::Image>) -> Result<wire::Image, Status> {
    let image = required("the image", image)?;
    if image.name.is_empty() {
        return Err(Status::invalid_argument("Image.Name required"));
    }
    Ok(image)
}

/// An update that leaves the target alone may come without one; what stands in for it is never read.
fn with_any_target(mut image: wire::Image, mask: &FieldMask) -> wire::Image {
    if !mask.is_all() && !mask.paths().iter().any(|path| path == "target") {
        let target = image.target.get_or_insert_default();
        target.digest = Digest::sha256([0; 32]).to_string();
        target.size = 0;
    }
    image
}

#[tonic::async_trait]
impl images_server::Images for Images {
    async fn get(
        &self,
        request: Request<wire::GetImageRequest>,
    ) -> Result<Response<wire::GetImageResponse>, Status> {
        let images = self.0.catalog.images(&scope(&request)?);
        let name = existing("image", &request.into_inner().name)?;
        let image = ok(images.image(&name).await)?;
        Ok(Response::new(wire::GetImageResponse { image: Some(image.into()) }))
    }

    async fn list(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let images = self.0.catalog.images(&scope(&request)?);
        let filters = ok(Filters::parse(&request.into_inner().filters))?;
        let found = ok(images.list(&filters).await)?;
        self.0.bounded(wire::ListImagesResponse { images: found.into_iter().map(Into::into).collect() })
    }

    async fn create(
        &self,
        request: Request<wire::CreateImageRequest>,
    ) -> Result<Response<wire::CreateImageResponse>, Status> {
        let images = self.0.catalog.images(&scope(&request)?);
        let image: Image = ok(named(request.into_inner().image)?.try_into())?;
        let change = async move {
            let made = images.create(image).await?;
            Ok(wire::CreateImageResponse { image: Some(made.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn update(
        &self,
        request: Request<wire::UpdateImageRequest>,
    ) -> Result<Response<wire::UpdateImageResponse>, Status> {
        let images = self.0.catalog.images(&scope(&request)?);
        let wire::UpdateImageRequest { image, update_mask, source_date_epoch: _ } = request.into_inner();
        let mask = from_field_mask(update_mask);
        let image: Image = ok(with_any_target(named(image)?, &mask).try_into())?;
        let change = async move {
            let updated = images.update(image, &mask).await?;
            Ok(wire::UpdateImageResponse { image: Some(updated.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn delete(&self, request: Request<wire::DeleteImageRequest>) -> Result<Response<()>, Status> {
        let images = self.0.catalog.images(&scope(&request)?);
        let wire::DeleteImageRequest { name, sync, target } = request.into_inner();
        let name = existing("image", &name)?;
        let target = target.map(|target| ok(target.digest.parse::<Digest>())).transpose()?;
        let deletion = if sync { Deletion::Synchronous } else { Deletion::Later };
        let change = async move { images.delete(&name, target.as_ref(), deletion).await };
        self.0.mutations.run(change).await
    }
}
