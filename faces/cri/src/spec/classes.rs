//! Classes that a container asks for by annotation: of block I/O, and of Intel's Resource Director Technology (RDT).
//!
//! A class of RDT is a class of service that the machine has already, a folder of the resctrl filesystem. There are none of
//! block I/O here; who asks for one is refused, or passed over where the configuration says so, as by a containerd that
//! has not been given any.

use std::collections::HashMap;
use std::path::Path;

use berth_oci::runtime::{IntelRdt, Spec};
use berth_types::{Error, Result};

use super::Inputs;

/// Where the classes of RDT are.
const RESCTRL: &str = "/sys/fs/resctrl";

/// Annotations of one kind of class, under the names that Kubernetes' users know.
struct Annotations {
    container: &'static str,
    pod: &'static str,
    pods_container: &'static str,
}

const BLOCK_IO: Annotations = Annotations {
    container: "io.kubernetes.cri.blockio-class",
    pod: "blockio.resources.beta.kubernetes.io/pod",
    pods_container: "blockio.resources.beta.kubernetes.io/container.",
};
const RDT: Annotations = Annotations {
    container: "io.kubernetes.cri.rdt-class",
    pod: "rdt.resources.beta.kubernetes.io/pod",
    pods_container: "rdt.resources.beta.kubernetes.io/container.",
};

impl Annotations {
    /// The class that is asked for: the container's own annotation outranks the pod's for it, and that the one for all.
    fn class<'a>(
        &self,
        name: &str,
        container: &'a HashMap<String, String>,
        pod: &'a HashMap<String, String>,
    ) -> Option<&'a str> {
        let of_pod = || pod.get(&format!("{}{name}", self.pods_container)).or_else(|| pod.get(self.pod));
        let class = container.get(self.container).or_else(of_pod)?;
        Some(class.as_str()).filter(|class| !class.is_empty())
    }
}

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let Inputs { pods, pod, config, .. } = inputs;
    let name = config.metadata.clone().unwrap_or_default().name;
    let (of_container, of_pod) = (&config.annotations, &pod.config.annotations);
    if let Some(class) = BLOCK_IO.class(&name, of_container, of_pod)
        && !pods.ignore_block_io_classes
    {
        return Err(Error::failed_precondition(format!(
            "class {class:?} of block I/O is asked for, and there are none: ask for limits of the cgroup, or set \
             ignore_blockio_not_enabled_errors"
        )));
    }
    if let Some(class) = RDT.class(&name, of_container, of_pod) {
        let is_name = !class.starts_with('.') && !class.contains('/');
        if is_name && Path::new(RESCTRL).join(class).is_dir() {
            let linux = spec.linux.get_or_insert_default();
            linux.intel_rdt = Some(IntelRdt { clos_id: class.to_owned(), ..IntelRdt::default() });
        } else if !pods.ignore_rdt_classes {
            return Err(Error::failed_precondition(format!(
                "class {class:?} of RDT is asked for, and there is no folder {RESCTRL}/{class}: make it there, or set \
                 ignore_rdt_not_enabled_errors"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_nearest_annotation_decides() {
        let pod = annotations(&[(RDT.pod, "all"), ("rdt.resources.beta.kubernetes.io/container.web", "web")]);
        let own = annotations(&[(RDT.container, "own")]);
        let none = HashMap::new();
        assert_eq!(RDT.class("web", &own, &pod), Some("own"));
        assert_eq!(RDT.class("web", &none, &pod), Some("web"));
        assert_eq!(RDT.class("db", &none, &pod), Some("all"));
        assert_eq!(RDT.class("db", &none, &none), None);
        assert_eq!(BLOCK_IO.class("web", &own, &pod), None);
        assert_eq!(RDT.class("web", &annotations(&[(RDT.container, "")]), &pod), None);
    }
}
