//! Steps of the child, so that the parent can say which one failed.

/// What the child was doing. The number that comes along says with which of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Step {
    /// Talking to the parent.
    Talk = 1,
    /// Entering a namespace.
    Join,
    /// Leaving namespaces for new ones.
    Unshare,
    /// Becoming root in the user namespace.
    Root,
    /// Setting the clocks of the time namespace.
    Time,
    /// Joining a cgroup.
    Cgroup,
    /// Making the inherited mounts private.
    Propagation,
    /// Attaching the root filesystem.
    RootMount,
    /// Finding or making the target of a mount.
    Target,
    /// A target that must not be mounted over.
    Forbidden,
    /// Mounting.
    Mount,
    /// Changing a mount after mounting it.
    MountChange,
    /// Filling a tmpfs.
    CopyUp,
    /// Making a device.
    Device,
    /// Making the links in /dev.
    DevLinks,
    /// Making the terminal.
    Terminal,
    /// Putting the terminal at /dev/console.
    Console,
    /// A hook of the container; errno holds its wait status, or 0 for a timeout.
    CreateHook,
    /// A hook before the program.
    StartHook,
    /// A hook could not be run.
    HookRun,
    /// Switching the root.
    Pivot,
    /// Setting the host name.
    Hostname,
    /// Setting the domain name.
    Domainname,
    /// Setting a kernel parameter.
    Sysctl,
    /// Making a path read-only.
    Readonly,
    /// Hiding a path.
    Mask,
    /// Session keyring.
    Keyring,
    /// Putting the streams in place.
    Streams,
    /// Opening the working directory.
    Cwd,
    /// The working directory lies outside the container.
    CwdOutside,
    /// The security label.
    Label,
    /// A resource limit.
    Limit,
    /// Scheduling, I/O priority, memory policy, affinity, personality.
    Scheduling,
    /// Dropping capabilities, changing user and groups.
    Identity,
    /// No new privileges.
    NoNewPrivileges,
    /// Loading the filter.
    Seccomp,
    /// The program is not in `PATH`.
    NotInPath,
    /// The program cannot be examined.
    Stat,
    /// The program cannot be executed: a directory, or lacking permission.
    Access,
    /// Waiting for the start.
    Gate,
    /// Executing the program.
    Execute,
}

/// A failure: step, number, errno.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// Which step.
    pub step: Step,
    /// Which of several.
    pub index: i32,
    /// The kernel's answer, or the hook's.
    pub code: i32,
}

/// Names the step on failure.
pub(crate) trait At<T> {
    /// At a step that has no number.
    fn at(self, step: Step) -> Result<T, Failure>;
    /// At the step with this number.
    fn nth(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.nth(step, 0)
    }

    fn nth(self, step: Step, index: usize) -> Result<T, Failure> {
        self.map_err(|errno| Failure { step, index: index as i32, code: errno.raw_os_error() })
    }
}
