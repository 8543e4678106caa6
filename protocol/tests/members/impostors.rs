//! Devices that speak for others: what a member says of itself counts, what others say of it can
//! neither push it out, nor turn it into something else, nor make the mesh knock at doors.

use std::collections::VecDeque;

use gemmesh_protocol::id::DeviceId;
use gemmesh_protocol::io::{Door, Input, LinkId, Output};
use gemmesh_protocol::message::{DeviceRecord, Message, Refusal};
use gemmesh_protocol::status::DeviceState;
use gemmesh_protocol::time::Span;

use crate::node::{DEVICES_MAX, HONEST, LIAR, ME, NODE, Node, PAGE, hello, record};

#[test]
fn others_can_not_speak_for_a_neighbour() {
    let mut node = Node::new(ME);
    node.join(1, HONEST, NODE, false);
    node.join(2, LIAR, NODE, false);
    for (incarnation, version) in [(1, 2), (1, u64::MAX / 9), (u64::MAX / 9, 2)] {
        for change in CHANGES {
            let mut forged = record(HONEST, NODE);
            (forged.incarnation, forged.version) = (incarnation, version);
            change(&mut forged);
            node.gossip(2, LIAR, vec![forged]);
            let entry = node.entry(HONEST).expect("still a member");
            let expected = ("n1", NODE, "192.0.2.1:80", DeviceState::Ready);
            let found = (
                entry.name.as_str(),
                entry.kind,
                entry.address.as_str(),
                entry.state,
            );
            assert_eq!(found, expected, "age {incarnation}.{version}");
        }
    }
    // Its own word still counts, although it is older than what was said of it.
    let mut renamed = record(HONEST, NODE);
    (renamed.version, renamed.name) = (2, "renamed".to_owned());
    node.gossip(1, HONEST, vec![renamed]);
    assert_eq!(node.entry(HONEST).expect("a member").name, "renamed");
}

#[test]
fn a_neighbour_hears_what_is_said_of_it_and_nobody_else_does() {
    let mut node = Node::new(ME);
    node.join(1, HONEST, NODE, false);
    node.join(2, LIAR, NODE, false);
    node.join(3, 2, NODE, false);
    let mut lost = record(HONEST, NODE);
    (lost.version, lost.state) = (7, DeviceState::Lost);
    let said = node.gossip(2, LIAR, vec![lost.clone()]);
    let told: Vec<u64> = gossip(&said)
        .filter(|(_, record)| **record == lost)
        .map(|(link, _)| link)
        .collect();
    assert_eq!(told, [1], "so that it can contradict");
}

#[test]
fn a_device_is_heard_although_another_life_of_it_was_made_up_before_it_came() {
    let mut node = Node::new(ME);
    node.join(2, LIAR, NODE, false);
    for change in CHANGES {
        let mut forged = record(HONEST, NODE);
        forged.incarnation = u64::MAX / 9;
        change(&mut forged);
        node.gossip(2, LIAR, vec![forged]);
    }
    node.join(1, HONEST, NODE, false);
    let entry = node.entry(HONEST).expect("a member");
    let found = (entry.name.as_str(), entry.kind, entry.state);
    assert_eq!(found, ("n1", NODE, DeviceState::Ready));
}

#[test]
fn no_version_makes_a_node_say_what_others_drop_it_for() {
    for version in [
        1 << 40,
        u64::MAX / 9,
        u64::MAX / 8,
        u64::MAX / 4,
        u64::MAX / 2 - 1,
    ] {
        let mut node = Node::new(ME);
        node.join(1, HONEST, NODE, false);
        node.join(2, LIAR, NODE, false);
        node.join(3, 7, PAGE, true);
        let mut said = Vec::new();
        for device in [ME, HONEST, 7, 8] {
            for state in [DeviceState::Ready, DeviceState::Lost] {
                let kind = if device >= 7 { PAGE } else { NODE };
                let mut forged = record(device, kind);
                (forged.version, forged.state) = (version, state);
                said.extend(node.gossip(2, LIAR, vec![forged]));
            }
        }
        let mut page = record(7, PAGE);
        page.version = version;
        said.extend(node.frame(3, 7, Message::Record(page)));
        said.extend(node.input(Input::LinkDown { link: LinkId(3) }));
        let mut renamed = record(8, PAGE);
        renamed.version = version;
        let hello = hello(renamed, true);
        said.extend(node.link_up(4, Door::Page));
        said.extend(node.frame(4, 8, Message::Hello(hello)));
        said.extend(node.input(Input::LinkDown { link: LinkId(4) }));
        node.now = node.now + Span::from_millis(600);
        said.extend(node.input(Input::Tick));
        for (link, record) in gossip(&said) {
            assert!(record.is_sane(), "version {version} to {link}: {record:?}");
        }
        assert!(node.entry(HONEST).is_some(), "version {version}");
    }
}

#[test]
fn two_nodes_that_both_have_a_page_do_not_contradict_each_other_for_ever() {
    let mut nodes = [Node::new(1), Node::new(2)];
    let mut frames = 0;
    // The page plays both sides: it answers whoever asks.
    for (at, link, device, kind) in [
        (0, 1, 2, NODE),
        (1, 1, 1, NODE),
        (0, 2, 7, PAGE),
        (1, 2, 7, PAGE),
    ] {
        let outputs = nodes[at].join(link, device, kind, kind == PAGE);
        let mut queue: VecDeque<_> = outputs.into_iter().map(|output| (at, output)).collect();
        while let Some((at, output)) = queue.pop_front() {
            let Output::Send { link, header, .. } = output else {
                continue;
            };
            let (to, outputs) = match (link, header.body) {
                (LinkId(1), Message::Welcome(_)) => continue,
                (LinkId(1), body) => (1 - at, nodes[1 - at].frame(1, at as u8 + 1, body)),
                (_, Message::Ping { nonce, .. }) => {
                    (at, nodes[at].frame(2, 7, Message::Pong { nonce }))
                }
                _ => continue,
            };
            queue.extend(outputs.into_iter().map(|output| (to, output)));
            frames += 1;
            assert!(frames < 200, "no end");
        }
    }
}

#[test]
fn a_page_that_is_said_to_have_moved_is_claimed_back_when_it_answers() {
    let mut node = Node::new(ME);
    node.join(2, LIAR, NODE, false);
    node.join(3, 7, PAGE, true);
    let mut stolen = record(7, PAGE);
    (stolen.version, stolen.via) = (50, Some(DeviceId([LIAR; 32])));
    let said = node.gossip(2, LIAR, vec![stolen]);
    let asked = said.iter().any(|output| {
        matches!(output, Output::Send { link: LinkId(3), header, .. }
            if matches!(header.body, Message::Ping { .. }))
    });
    assert!(asked, "whether it is still here");
    let said = node.frame(3, 7, Message::Pong { nonce: 0 });
    let claimed = gossip(&said).any(|(link, record)| {
        link == 2 && record.via == Some(DeviceId([ME; 32])) && record.version == 51
    });
    assert!(claimed, "{said:?}");
}

#[test]
fn a_page_that_has_moved_is_not_said_to_be_lost_when_its_old_link_ends() {
    let mut node = Node::new(ME);
    node.join(1, HONEST, NODE, false);
    node.join(3, 7, PAGE, true);
    let mut moved = record(7, PAGE);
    (moved.version, moved.via) = (50, Some(DeviceId([HONEST; 32])));
    node.gossip(1, HONEST, vec![moved]);
    node.input(Input::LinkDown { link: LinkId(3) });
    assert_eq!(node.entry(7).expect("a member").state, DeviceState::Ready);
}

#[test]
fn made_up_devices_are_dialled_a_few_at_a_time() {
    let mut node = Node::new(ME);
    node.join(2, LIAR, NODE, false);
    let mut dialled = 0;
    for chunk in 0..2 {
        let made_up = (0..400).map(|i| made_up(chunk * 400 + i)).collect();
        let said = node.gossip(2, LIAR, made_up);
        dialled += dials(&said);
    }
    for _ in 0..20 {
        node.now = node.now + Span::from_millis(200);
        dialled += dials(&node.input(Input::Tick));
    }
    assert!(dialled > 0, "hearsay is a hint");
    assert!(dialled <= 16, "{dialled} doors at once");
}

#[test]
fn a_list_full_of_made_up_devices_keeps_nobody_out() {
    let mut node = Node::new(ME);
    node.join(2, LIAR, NODE, false);
    for chunk in 0..4 {
        let made_up = (0..400).map(|i| made_up(chunk * 400 + i)).collect();
        node.gossip(2, LIAR, made_up);
    }
    assert!(node.engine.devices().len() <= DEVICES_MAX + 1);
    let said = node.join(1, HONEST, NODE, false);
    let refused = said.iter().any(|output| {
        matches!(output, Output::Send { header, .. }
            if matches!(header.body, Message::Refuse { reason: Refusal::Full, .. }))
    });
    assert!(!refused);
    assert!(node.entry(HONEST).is_some());
}

#[test]
fn an_address_is_dialled_for_ever_only_when_it_was_asked_for() {
    let mut node = Node::new(ME);
    for i in 0..1_000 {
        let (address, device, keep) = (format!("192.0.2.9:{}", i + 1), None, true);
        node.input(Input::Hint {
            address,
            device,
            keep,
        });
    }
    let mut addresses = std::collections::BTreeSet::new();
    for _ in 0..100 {
        node.now = node.now + Span::from_secs(11);
        for output in node.input(Input::Tick) {
            if let Output::Dial { address } = output {
                addresses.insert(address);
            }
        }
    }
    assert!(addresses.len() <= 256, "{} addresses", addresses.len());
}

/// Ways to misrepresent a device.
const CHANGES: [fn(&mut DeviceRecord); 5] = [
    |record| record.state = DeviceState::Lost,
    |record| record.name = "somebody else".to_owned(),
    |record| record.addresses = vec!["192.0.2.66:1".to_owned()],
    |record| {
        record.kind = PAGE;
        record.via = Some(DeviceId([LIAR; 32]));
    },
    |record| record.mflops = 1e11,
];

/// Every record that was gossiped, with the link.
fn gossip(outputs: &[Output<()>]) -> impl Iterator<Item = (u64, &DeviceRecord)> {
    outputs.iter().flat_map(|output| match output {
        Output::Send { link, header, .. } => match &header.body {
            Message::Gossip { devices } => devices.iter().map(|record| (link.0, record)).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    })
}

fn dials(outputs: &[Output<()>]) -> usize {
    let dials = outputs.iter().filter(|o| matches!(o, Output::Dial { .. }));
    dials.count()
}

/// A node that nobody has seen, at the door of a victim.
fn made_up(number: u32) -> DeviceRecord {
    let mut record = record(100, NODE);
    record.device.0[..4].copy_from_slice(&number.to_be_bytes());
    record.addresses = vec![format!("192.0.2.66:{}", number + 1)];
    record
}
