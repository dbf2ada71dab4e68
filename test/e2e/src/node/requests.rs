//! The requests of a kubelet, in short.

use berth_proto::runtime::v1 as proto;

use super::{Answer, IMAGE, Node};

/// A container that runs `words`, with a log.
pub fn container(name: &str, words: &[&str]) -> proto::ContainerConfig {
    proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(proto::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(proto::LinuxContainerConfig {
            security_context: Some(proto::LinuxContainerSecurityContext {
                namespace_options: Some(own_processes()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A pod, as kubelets ask for it; its cgroups and logs are the node's own.
pub fn pod(node: &Node, name: &str) -> proto::PodSandboxConfig {
    let logs = node.path("logs").join(name);
    std::fs::create_dir_all(&logs).expect("the scratch folder takes folders");
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: logs.display().to_string(),
        linux: Some(proto::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}", node.daemon.tag()),
            security_context: Some(proto::LinuxSandboxSecurityContext {
                namespace_options: Some(own_processes()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn own_processes() -> proto::NamespaceOption {
    proto::NamespaceOption { pid: proto::NamespaceMode::Container.into(), ..Default::default() }
}

/// Gives a pod and a container of it users of their own: root is 1,000,000 outside.
pub fn give_own_users(pod: &mut proto::PodSandboxConfig, container: &mut proto::ContainerConfig) {
    let mapping = proto::IdMapping { host_id: 1_000_000, container_id: 0, length: 65536 };
    let users = proto::UserNamespace {
        mode: proto::NamespaceMode::Pod.into(),
        uids: vec![mapping],
        gids: vec![mapping],
    };
    let options = proto::NamespaceOption { userns_options: Some(users), ..own_processes() };
    let security = pod.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    security.expect("it has it").namespace_options = Some(options.clone());
    let security = container.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    security.expect("it has it").namespace_options = Some(options);
}

impl Node {
    /// `RunPodSandbox`; gives the id.
    #[track_caller]
    pub fn run_pod(&self, config: &proto::PodSandboxConfig) -> Answer<String> {
        let request = run_pod(config);
        let answer = self.ask(|mut client| async move { client.run_pod_sandbox(request).await })?;
        Ok(answer.pod_sandbox_id)
    }

    /// `CreateContainer`; gives the id.
    #[track_caller]
    pub fn create(
        &self,
        pod: &str,
        of: &proto::PodSandboxConfig,
        config: &proto::ContainerConfig,
    ) -> Answer<String> {
        let request = create(pod, of, config);
        let answer = self.ask(|mut client| async move { client.create_container(request).await })?;
        Ok(answer.container_id)
    }

    /// `StartContainer`.
    #[track_caller]
    pub fn start_container(&self, id: &str) -> Answer<()> {
        let request = proto::StartContainerRequest { container_id: id.to_owned() };
        self.ask(|mut client| async move { client.start_container(request).await }).map(drop)
    }

    /// Creates and starts; gives the id.
    #[track_caller]
    pub fn started(
        &self,
        pod: &str,
        of: &proto::PodSandboxConfig,
        config: &proto::ContainerConfig,
    ) -> Answer<String> {
        let id = self.create(pod, of, config)?;
        self.start_container(&id)?;
        Ok(id)
    }

    /// `StopContainer`.
    #[track_caller]
    pub fn stop_container(&self, id: &str, timeout: i64) -> Answer<()> {
        let request = proto::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.ask(|mut client| async move { client.stop_container(request).await }).map(drop)
    }

    /// `RemoveContainer`.
    #[track_caller]
    pub fn remove_container(&self, id: &str) -> Answer<()> {
        let request = proto::RemoveContainerRequest { container_id: id.to_owned() };
        self.ask(|mut client| async move { client.remove_container(request).await }).map(drop)
    }

    /// `StopPodSandbox`.
    #[track_caller]
    pub fn stop_pod(&self, id: &str) -> Answer<()> {
        let request = proto::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.ask(|mut client| async move { client.stop_pod_sandbox(request).await }).map(drop)
    }

    /// `RemovePodSandbox`.
    #[track_caller]
    pub fn remove_pod(&self, id: &str) -> Answer<()> {
        let request = proto::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.ask(|mut client| async move { client.remove_pod_sandbox(request).await }).map(drop)
    }

    /// Stops and removes a pod, which has to succeed.
    #[track_caller]
    pub fn away(&self, id: &str) {
        self.stop_pod(id).expect("a pod can be stopped");
        self.remove_pod(id).expect("a pod can be removed");
    }

    /// `ContainerStatus`.
    #[track_caller]
    pub fn status(&self, id: &str) -> Answer<proto::ContainerStatus> {
        let request = proto::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.ask(|mut client| async move { client.container_status(request).await })?;
        Ok(answer.status.unwrap_or_default())
    }

    /// `PodSandboxStatus`.
    #[track_caller]
    pub fn pod_status(&self, id: &str) -> Answer<proto::PodSandboxStatus> {
        let request = proto::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.ask(|mut client| async move { client.pod_sandbox_status(request).await })?;
        Ok(answer.status.unwrap_or_default())
    }

    /// `ListPodSandbox`.
    #[track_caller]
    pub fn pods(&self) -> Vec<proto::PodSandbox> {
        let request = proto::ListPodSandboxRequest::default();
        let answer = self.ask(|mut client| async move { client.list_pod_sandbox(request).await });
        answer.expect("pods can be listed").items
    }

    /// `ListContainers`.
    #[track_caller]
    pub fn containers(&self) -> Vec<proto::Container> {
        let request = proto::ListContainersRequest::default();
        let answer = self.ask(|mut client| async move { client.list_containers(request).await });
        answer.expect("containers can be listed").containers
    }

    /// `ExecSync`, for a minute at most.
    #[track_caller]
    pub fn exec(&self, id: &str, words: &[&str]) -> Answer<proto::ExecSyncResponse> {
        let cmd = words.iter().map(|word| (*word).to_owned()).collect();
        let request = proto::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 60 };
        self.ask(|mut client| async move { client.exec_sync(request).await })
    }

    /// What a shell in the container says, which has to succeed.
    #[track_caller]
    pub fn sh(&self, id: &str, script: &str) -> String {
        let answer = self.exec(id, &["sh", "-c", script]).expect("a command can be run");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        assert_eq!(answer.exit_code, 0, "{script}: {stdout}{stderr}");
        stdout.into_owned()
    }

    /// Waits for the end of a container, and gives its status.
    #[track_caller]
    pub fn ended(&self, id: &str) -> proto::ContainerStatus {
        testkit::wait::until("the end of a container", testkit::wait::SOON, || {
            let status = self.status(id).expect("it is there");
            (status.state() == proto::ContainerState::ContainerExited).then_some(status)
        })
    }

    /// A container's log.
    pub fn log(&self, pod: &str, name: &str) -> String {
        let path = self.path("logs").join(pod).join(format!("{name}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

/// The request for a pod.
pub fn run_pod(config: &proto::PodSandboxConfig) -> proto::RunPodSandboxRequest {
    proto::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() }
}

/// The request for a container.
pub fn create(
    pod: &str,
    of: &proto::PodSandboxConfig,
    config: &proto::ContainerConfig,
) -> proto::CreateContainerRequest {
    proto::CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(config.clone()),
        sandbox_config: Some(of.clone()),
    }
}
