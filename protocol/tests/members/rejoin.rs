//! A node that was killed and comes back: the others have dialled its old address in vain, and some
//! hear of its new life from others before its new link is up.

use gemmesh_protocol::io::{Door, Input, LinkId, Output};
use gemmesh_protocol::message::{DeviceRecord, Message};
use gemmesh_protocol::status::DeviceState;
use gemmesh_protocol::time::Span;

use crate::node::*;

/// Another node, which is there all the time.
const OTHER: u8 = 2;
/// Who is killed and comes back.
const KILLED: u8 = HONEST;

#[test]
fn a_node_that_came_back_is_a_member_although_its_news_came_before_its_link() {
    let mut node = bereaved();
    // As others see it whom it has dialled already.
    node.gossip(2, OTHER, vec![second_life()]);
    come_back(&mut node);
    assert_eq!(state(&node), Some(DeviceState::Ready));
    let_pass(&mut node, Span::from_secs(70), &[(2, OTHER), (3, KILLED)]);
    let after = "what was noted in its first life is over";
    assert_eq!(state(&node), Some(DeviceState::Ready), "{after}");
}

#[test]
fn a_node_that_came_back_is_a_member_although_its_link_came_before_its_news() {
    let mut node = bereaved();
    come_back(&mut node);
    node.gossip(2, OTHER, vec![second_life()]);
    assert_eq!(state(&node), Some(DeviceState::Ready));
    let_pass(&mut node, Span::from_secs(70), &[(2, OTHER), (3, KILLED)]);
    assert_eq!(state(&node), Some(DeviceState::Ready));
}

#[test]
fn a_new_life_is_not_lost_because_the_old_address_was_dialled_in_vain() {
    let mut node = bereaved();
    node.gossip(2, OTHER, vec![second_life()]);
    assert_eq!(state(&node), Some(DeviceState::Ready));
}

/// A node that lost a neighbour 30 s ago and has dialled it in vain since.
fn bereaved() -> Node {
    let mut node = Node::new(ME);
    node.join(1, KILLED, NODE, false);
    node.join(2, OTHER, NODE, false);
    node.input(Input::LinkDown { link: LinkId(1) });
    let_pass(&mut node, Span::from_secs(30), &[(2, OTHER)]);
    assert_eq!(state(&node), Some(DeviceState::Lost));
    node
}

/// Time goes by: these neighbours show themselves, and nobody is at home where the node dials.
fn let_pass(node: &mut Node, span: Span, neighbours: &[(u64, u8)]) {
    let end = node.now + span;
    while node.now < end {
        node.now = node.now + Span::from_millis(200);
        for (link, from) in neighbours {
            node.frame(*link, *from, Message::Pong { nonce: 0 });
        }
        for output in node.input(Input::Tick) {
            if let Output::Dial { address } = output {
                node.input(Input::DialFailed { address });
            }
        }
    }
}

/// The killed one introduces itself on a new link.
fn come_back(node: &mut Node) {
    node.link_up(3, Door::Mesh);
    node.frame(3, KILLED, Message::Hello(hello(second_life(), false)));
}

fn second_life() -> DeviceRecord {
    let mut record = record(KILLED, NODE);
    record.incarnation = 2;
    record.addresses = vec!["192.0.2.1:81".to_owned()];
    record
}

fn state(node: &Node) -> Option<DeviceState> {
    node.entry(KILLED).map(|entry| entry.state)
}
