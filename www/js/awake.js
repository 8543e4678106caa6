// Keeps the screen on while this page helps. Browsers have wake locks in secure contexts alone; elsewhere a
// video that plays does the same, and a browser plays one after a tap.

const PAINT_MS = 1_000;

/** `lock`, `video`, or null: how this browser can keep the screen on. */
export function awakeWay() {
  if ('wakeLock' in navigator) return 'lock';
  return 'captureStream' in HTMLCanvasElement.prototype && 'srcObject' in HTMLVideoElement.prototype ? 'video' : null;
}

/**
 * Returns a function that is told whether the screen should be on. `changed` is told what became of it:
 * `on`, `off` or `refused`.
 */
export function keepAwake(way, changed) {
  const keeper = way === 'lock' ? lock(changed) : way === 'video' ? video(changed) : null;
  let wanted = false;
  return (should) => {
    // A lock does not outlive a glance elsewhere, so it is asked for again.
    if (should === wanted && !(should && keeper?.lost())) return;
    wanted = should;
    if (should) keeper?.on();
    else keeper?.off();
  };
}

function lock(changed) {
  /** @type {WakeLockSentinel | null} */
  let held = null;
  let asking = false;
  let wanted = false;

  async function on() {
    wanted = true;
    if (asking) return;
    asking = true;
    try {
      const sentinel = await navigator.wakeLock.request('screen');
      sentinel.addEventListener('release', () => {
        if (held !== sentinel) return;
        held = null;
        changed('off');
      });
      held = sentinel;
      changed('on');
      if (!wanted) off();
    } catch {
      changed('refused');
    } finally {
      asking = false;
    }
  }

  function off() {
    wanted = false;
    held?.release();
  }

  return { on, off, lost: () => !held && !asking };
}

function video(changed) {
  /** @type {HTMLVideoElement | null} */
  let element = null;
  let painting = 0;

  /** A picture of two colours with silence: a phone stays on for a video with sound. */
  function make() {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 16;
    const context = canvas.getContext('2d');
    const stream = canvas.captureStream();
    const silence = new AudioContext().createMediaStreamDestination();
    stream.addTrack(silence.stream.getAudioTracks()[0]);
    const made = document.createElement('video');
    made.className = 'awake-video';
    made.setAttribute('playsinline', '');
    made.setAttribute('aria-hidden', 'true');
    made.srcObject = stream;
    document.body.append(made);
    let odd = false;
    const paint = () => {
      odd = !odd;
      context.fillStyle = odd ? '#000000' : '#010101';
      context.fillRect(0, 0, canvas.width, canvas.height);
    };
    return { made, paint };
  }

  /** @type {() => void} */
  let paint;

  async function on() {
    try {
      if (!element) {
        const { made, paint: painter } = make();
        element = made;
        paint = painter;
      }
      paint();
      clearInterval(painting);
      painting = setInterval(paint, PAINT_MS);
      await element.play();
      changed('on');
    } catch {
      off();
      changed('refused');
    }
  }

  function off() {
    clearInterval(painting);
    if (!element || element.paused) return;
    element.pause();
    changed('off');
  }

  return { on, off, lost: () => false };
}
