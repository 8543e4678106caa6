//! Who computed which tile.

use super::*;

#[tokio::test]
async fn tiles_are_told_in_the_order_in_which_they_came_also_after_the_end() {
    let place = Place::new();
    let (store, header) = place.with_job().await;
    let began = wall();
    for tile in [2, 0] {
        write(&store, &header, tile).await.unwrap();
    }
    let first = store.mosaic(header.job, 0).await.unwrap();
    assert_eq!(first.tiling, header.tiling);
    assert_eq!(numbers(&first), [2, 0]);
    for piece in &first.tiles {
        let record = record(u64::from(piece.tile)).expect("each tile has a device of its own");
        assert_eq!(first.devices[&piece.device], record);
        assert!((began..=wall()).contains(&piece.at.expect("it was written down")));
    }
    write(&store, &header, 1).await.unwrap();
    let more = store.mosaic(header.job, first.next).await.unwrap();
    assert_eq!(numbers(&more), [1]);
    assert_eq!(more.devices.len(), 1, "of the devices of these tiles");
    let none = store.mosaic(header.job, more.next).await.unwrap();
    assert_eq!((numbers(&none), none.next), (vec![], more.next));
    for tile in 3..header.tiling.len() {
        write(&store, &header, tile).await.unwrap();
    }
    store.finish_job(header.job).await.unwrap();
    store
        .end_job(&status(&header, JobState::Done))
        .await
        .unwrap();
    drop(store);
    let all = place.open().mosaic(header.job, 0).await.unwrap();
    assert_eq!(all.tiles.len() as u64, header.tiling.len());
    assert_eq!(all.tiles[..2], first.tiles);
}

#[tokio::test]
async fn an_unknown_job_has_no_tiles() {
    let place = Place::new();
    let found = place.open().mosaic(JobId([9; 16]), 0).await;
    assert!(matches!(found, Err(StoreError::NoSuchJob(_))), "{found:?}");
}

fn numbers(mosaic: &Mosaic) -> Vec<u32> {
    mosaic.tiles.iter().map(|piece| piece.tile).collect()
}
