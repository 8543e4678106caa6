//! Processes and devices that stop and start.

use gemmesh_protocol::io::Input;

use super::faults::Class;
use super::invariants::Step;
use super::{Event, Power, Sim};

impl Sim {
    /// The process dies: its sockets are closed by the system.
    pub fn kill(&mut self, host: usize) {
        self.stop(host, Power::Down);
    }

    /// The power fails: nobody hears anything of it.
    pub fn power_off(&mut self, host: usize) {
        self.stop(host, Power::Off);
    }

    fn stop(&mut self, host: usize, power: Power) {
        let was = self.hosts[host].power;
        self.set_power(host, power);
        if matches!(was, Power::Down | Power::Off) {
            return;
        }
        self.drop_links(host, power == Power::Down);
        let device = self.hosts[host].device;
        let state = &mut self.hosts[host];
        state.incarnation += 1;
        state.cache.clear();
        state.slots.clear();
        state.started.clear();
        state.backlog.clear();
        state.wake = None;
        let before = state.disk.pending().count();
        let applied = state.disk.crash(device, &mut self.prng);
        if before > 0 {
            self.injected(Class::TornWrite);
            if applied.len() < before {
                self.mattered(Class::TornWrite);
            }
        }
        for applied in applied {
            self.observe(&Step::Written(host, &applied));
        }
        self.observe(&Step::Stopped(host));
    }

    /// A device that stopped starts again with what is on its disk.
    pub fn restart(&mut self, host: usize) {
        if !matches!(self.hosts[host].power, Power::Down | Power::Off) {
            return;
        }
        self.set_power(host, Power::On);
        let state = &self.hosts[host];
        let (kind, spec, device) = (state.kind, state.spec, state.device);
        let (home, clock, address) = (state.home, state.clock, state.address.clone());
        self.hosts[host].machine = self.machine(host, kind, spec, device, &address, home, clock);
        self.observe(&Step::Started(host));
        if self.hosts[host].is_node() {
            let wall = clock.wall(self.now);
            for input in self.hosts[host].disk.restore(wall) {
                self.input(host, input);
            }
            for address in self.hosts[host].peers.clone() {
                let hint = Input::Hint {
                    address,
                    device: None,
                    keep: true,
                };
                self.input(host, hint);
            }
        }
        self.drain(host);
    }

    /// The process stands still.
    pub fn pause(&mut self, host: usize) {
        if self.hosts[host].power == Power::On {
            self.set_power(host, Power::Paused);
        }
    }

    /// A process that stood still goes on: all that came meanwhile comes now.
    pub fn resume(&mut self, host: usize) {
        if self.hosts[host].power != Power::Paused {
            return;
        }
        self.set_power(host, Power::On);
        for event in std::mem::take(&mut self.hosts[host].backlog) {
            self.event(event);
        }
        self.input(host, Input::Tick);
    }

    /// The device sleeps: nothing comes from it any more, not even the end of its sockets.
    pub fn vanish(&mut self, host: usize) {
        self.pause(host);
        let links: Vec<usize> = self.hosts[host].links.values().map(|at| at.0).collect();
        for connection in links {
            self.connections[connection].dead = true;
        }
    }

    /// The device wakes up: its timers run again, its sockets are dead.
    pub fn wake(&mut self, host: usize) {
        self.resume(host);
    }

    fn set_power(&mut self, host: usize, power: Power) {
        if self.hosts[host].power != power {
            self.hosts[host].power = power;
            self.hosts[host].power_since = self.now;
        }
    }

    /// The oldest write of a host is done.
    pub(super) fn disk_ready(&mut self, host: usize, incarnation: u32) {
        if self.hosts[host].incarnation != incarnation {
            return;
        }
        let device = self.hosts[host].device;
        if let Some(applied) = self.hosts[host].disk.complete(device) {
            if !applied.durable && applied.answer.is_some() {
                self.write_refused(host, &applied);
            }
            self.observe(&Step::Written(host, &applied));
            if let Some(answer) = applied.answer {
                if let Input::Submit { taken } = &answer {
                    let job = taken.header.job;
                    let truth = self.jobs.get_mut(&job).expect("it was submitted");
                    truth.acknowledged = Some(self.now);
                    let name = self.job_name(job);
                    self.tell(format!("n{host} takes {name}"));
                }
                self.input(host, answer);
            }
        }
    }

    pub(super) fn write(&mut self, host: usize, write: super::disk::Write) {
        if self.hosts[host].power != Power::On {
            return;
        }
        let at = self.hosts[host].disk.write(write, self.now, &mut self.prng);
        let incarnation = self.hosts[host].incarnation;
        self.at(at, Event::Disk { host, incarnation });
    }
}
