//! Volumes: folders of ours that outlive containers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::home::{make, replace};
use crate::parse::check_volume_name;
use crate::{Workload, names};

/// A volume, as `volume inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Always `local`.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where its data is.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// Options; none are known.
    pub options: BTreeMap<String, String>,
    /// Always `local`.
    pub scope: String,
    /// Whether nobody gave it a name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}

impl Workload {
    /// Makes a volume; one that is there already is answered as it is. Without a name it gets one.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<(Volume, bool)> {
        let anonymous = name.is_none();
        let name = match name {
            Some(name) => {
                check_volume_name(name)?;
                name.to_owned()
            }
            None => names::new_id().to_string(),
        };
        let folder = self.home.volumes().join(&name);
        make(&self.home.volumes())?;
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok((self.volume(&name)?, false));
            }
            Err(error) => return Err(Error::io(format!("cannot make volume {name}"), error)),
        }
        let data = folder.join("_data");
        let volume = Volume {
            created_at: jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default().to_string(),
            driver: "local".to_owned(),
            labels,
            mountpoint: data.to_string_lossy().into_owned(),
            name: name.clone(),
            options: BTreeMap::new(),
            scope: "local".to_owned(),
            anonymous,
        };
        let made = fs::create_dir(&data)
            .and_then(|()| open_to_all(&data))
            .and_then(|()| open_to_all(&folder))
            .map_err(|error| Error::io(format!("cannot make volume {name}"), error))
            .and_then(|()| replace(&folder.join("volume.json"), &to_json(&volume)));
        if let Err(error) = made {
            let _ = fs::remove_dir_all(&folder);
            return Err(error);
        }
        Ok((volume, true))
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        let missing = || Error::not_found(format!("get {name}: no such volume"));
        check_volume_name(name).map_err(|_| missing())?;
        let folder = self.home.volumes().join(name);
        if !folder.join("_data").is_dir() {
            return Err(missing());
        }
        let known = fs::read(folder.join("volume.json")).ok();
        let known = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(known.unwrap_or_else(|| Volume {
            created_at: String::new(),
            driver: "local".to_owned(),
            labels: BTreeMap::new(),
            mountpoint: folder.join("_data").to_string_lossy().into_owned(),
            name: name.to_owned(),
            options: BTreeMap::new(),
            scope: "local".to_owned(),
            anonymous: false,
        }))
    }

    /// Every volume, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(self.home.volumes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io("cannot list the volumes", error))?,
        };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut volumes: Vec<Volume> = names.filter_map(|name| self.volume(&name).ok()).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Which containers use which volumes: (volume, container).
    pub async fn volume_users(&self) -> Result<Vec<(String, String)>> {
        let containers =
            self.catalog.containers(&self.scope).list(&berth_types::filter::Filters::default()).await?;
        let mut users = Vec::new();
        for container in containers {
            let Some(definition) = crate::Definition::of(&container)? else { continue };
            let names = definition.mounts.into_iter().filter(|point| !point.name.is_empty());
            users.extend(names.map(|point| (point.name, container.id.to_string())));
        }
        Ok(users)
    }

    /// Removes a volume that no container uses.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        self.volume(name)?;
        let users: Vec<String> = self
            .volume_users()
            .await?
            .into_iter()
            .filter(|(volume, _)| volume == name)
            .map(|(_, id)| id)
            .collect();
        if !users.is_empty() {
            return Err(Error::failed_precondition(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        self.drop_volume(name)
    }

    /// Removes a volume's folder. The folder takes another name first, so that what is half removed is no volume.
    pub(crate) fn drop_volume(&self, name: &str) -> Result<()> {
        let failed = |error| Error::io(format!("cannot remove volume {name}"), error);
        let folder = self.home.volumes().join(name);
        let aside = self.home.volumes().join(format!(".removing-{name}"));
        match fs::rename(&folder, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        }
        fs::remove_dir_all(&aside).map_err(failed)
    }
}

fn open_to_all(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

fn to_json(volume: &Volume) -> Vec<u8> {
    serde_json::to_vec(volume).expect("strings always serialize")
}
