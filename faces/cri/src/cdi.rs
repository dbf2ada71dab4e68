//! Devices of the Container Device Interface, which requests and plugins name.

use berth_cdi::DeviceName;
use berth_oci::runtime::Spec;
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result};

use crate::Cri;
use crate::blocking::blocking;

impl Cri {
    /// Gives a container the devices that its request names, in its field for them and in annotations.
    pub(crate) async fn give_devices(&self, config: &proto::ContainerConfig, spec: &mut Spec) -> Result<()> {
        let mut names = parsed(config.cdi_devices.iter().map(|device| device.name.as_str()))?;
        if !self.config.pods.cdi_folders.is_empty() {
            let more = berth_cdi::of_annotations(&config.annotations);
            names.extend(more.map_err(|error| Error::invalid_argument(error.to_string()))?);
        }
        self.inject_devices(names, spec).await
    }

    /// Gives a container the devices that plugins name.
    pub(crate) async fn give_named_devices<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        spec: &mut Spec,
    ) -> Result<()> {
        self.inject_devices(parsed(names)?, spec).await
    }

    async fn inject_devices(&self, names: Vec<DeviceName>, spec: &mut Spec) -> Result<()> {
        let Some(first) = names.first() else { return Ok(()) };
        let folders = self.config.pods.cdi_folders.clone();
        if folders.is_empty() {
            return Err(Error::failed_precondition(format!(
                "the CDI device {first} was asked for, and enable_cdi is off in the configuration"
            )));
        }
        let mut changed = std::mem::take(spec);
        *spec = blocking(move || berth_cdi::inject(&mut changed, &folders, &names).map(|()| changed)).await?;
        Ok(())
    }
}

fn parsed<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<DeviceName>> {
    let one = |name: &str| {
        name.parse().map_err(|error: berth_cdi::NameError| Error::invalid_argument(error.to_string()))
    };
    names.map(one).collect()
}
