//! Ends of processes, in the order that clients rely on: a start is told before its end, and the first process'
//! end after those of all others.

use berth_proto as proto;
use berth_proto::convert::timestamp;
use proto::containerd::events::{TaskExit, TaskOom};
use proto::containerd::task::v3::WaitResponse;

use super::task::{ProcessKey, State};
use super::{Shim, Target};
use crate::children::Exited;
use berth_cgroup::OomWatch;

impl Shim {
    pub(super) fn reap(&mut self) {
        for exited in self.children.reap() {
            if let Some(key) = self.pids.get(&exited.pid).cloned() {
                self.exited(&key, exited);
            } else if self.loggers.contains_key(&exited.pid) {
                self.logger_ended(exited.pid);
            } else {
                self.children.keep(exited);
            }
        }
    }

    /// Takes note of a new process' number, and of its end if that has come already.
    pub(crate) fn learn_pid(&mut self, key: &ProcessKey, pid: u32) {
        self.pids.insert(pid, key.clone());
        if let Some(process) = self.process_mut(key) {
            process.pid = pid;
        }
        if let Some(exited) = self.children.take_early(pid) {
            self.exited(key, exited);
        }
    }

    /// A process has ended.
    pub(crate) fn exited(&mut self, key: &ProcessKey, exited: Exited) {
        self.pids.remove(&exited.pid);
        let Some(process) = self.process_mut(key) else { return };
        if process.starting {
            process.early_exit = Some(exited);
            return;
        }
        if key.is_init() {
            self.init_exited(&key.container, exited);
            return;
        }
        self.settle(key, exited);
        self.settle_init(&key.container);
    }

    /// The start of a process has been told, so its end may be.
    pub(crate) fn started(&mut self, key: &ProcessKey) {
        let Some(process) = self.process_mut(key) else { return };
        process.starting = false;
        if let Some(exited) = process.early_exit.take() {
            self.exited(key, exited);
        } else {
            self.settle_init(&key.container);
        }
    }

    fn init_exited(&mut self, id: &str, exited: Exited) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.held_exit = Some(exited);
        let was_paused = matches!(task.init.state, State::Paused | State::Pausing);
        if !task.outlives_init && !was_paused {
            return self.settle_init(id);
        }
        // The rest does not end by itself: it is killed, and thawed to take notice.
        task.killing_rest = true;
        let (runtime, outlives, id) = (task.runtime.clone(), task.outlives_init, id.to_owned());
        self.jobs.run(move || {
            let killed = if outlives { runtime.kill_all(&id, libc::SIGKILL as u32) } else { Ok(()) };
            let thawed = if was_paused { runtime.resume(&id) } else { Ok(()) };
            Box::new(move |shim| {
                for error in [killed, thawed].into_iter().filter_map(Result::err) {
                    // Most often there was nobody left.
                    shim.log.debug(format_args!("after the end of {id}: {}", error.chain()));
                }
                if let Some(task) = shim.tasks.get_mut(&id) {
                    task.killing_rest = false;
                }
                shim.settle_init(&id);
            })
        });
    }

    /// Tells the end of the first process, when its time has come.
    fn settle_init(&mut self, id: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.killing_rest || task.has_running_execs() {
            return;
        }
        let Some(exited) = task.held_exit.take() else { return };
        if let Some((number, watch)) = task.oom.take() {
            self.last_look_for_oom(id, number, watch);
        }
        self.settle(&ProcessKey::new(id, ""), exited);
    }

    fn settle(&mut self, key: &ProcessKey, exited: Exited) {
        let Some(process) = self.process_mut(key) else { return };
        process.state = State::Stopped;
        process.exit = Some(exited);
        let waiters = std::mem::take(&mut process.waiters);
        let exited_at = timestamp(exited.at);
        self.end_input(key);
        self.tell(
            "/tasks/exit",
            &TaskExit {
                container_id: key.container.clone(),
                id: key.id().to_owned(),
                pid: exited.pid,
                exit_status: exited.status,
                exited_at,
            },
        );
        for waiter in waiters {
            waiter.send_message(Ok(WaitResponse { exit_status: exited.status, exited_at }));
        }
    }

    /// Watches a new container's memory.
    pub(crate) fn watch_oom(&mut self, id: &str, watch: OomWatch) {
        match self.watch(&watch, Target::Oom) {
            Ok(number) => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.oom = Some((number, watch));
                }
            }
            Err(error) => self.log.error(format_args!("cannot watch the memory of {id}: {error}")),
        }
    }

    pub(super) fn look_for_oom(&mut self, number: u64) {
        let found = self.tasks.iter_mut().find_map(|(id, task)| match &mut task.oom {
            Some((of, watch)) if *of == number => watch.take().then(|| id.clone()),
            _ => None,
        });
        if let Some(container_id) = found {
            self.tell("/tasks/oom", &TaskOom { container_id });
        }
    }

    /// So that the reason is told before the end.
    fn last_look_for_oom(&mut self, id: &str, number: u64, mut watch: OomWatch) {
        self.targets.remove(&number);
        if watch.take() {
            self.tell("/tasks/oom", &TaskOom { container_id: id.to_owned() });
        }
        self.poll.forget(&watch);
    }
}
