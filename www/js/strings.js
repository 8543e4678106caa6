// Every text that a person reads, in one place. Functions take what varies.

import { bytes, count, duration, isolated, number, scaled, speed } from './format.js';

export const strings = {
  title: 'gemmesh',
  tableOf: (heading) => `${heading}, table`,

  connection: {
    starting: 'Starting…',
    connecting: 'Connecting…',
    online: 'Connected',
    away: 'Asleep while hidden',
    left: 'Left the mesh',
    unsupported: 'This browser can not compute',
    waiting: 'Node not reachable',
    nextTry: (seconds) => (seconds > 0 ? `next try in ${seconds} s` : 'trying…'),
    refused: {
      mesh: 'The node belongs to another mesh. Reload the page.',
      version: 'The node speaks another version. Reload the page.',
      full: 'The mesh is full.',
    },
    retry: 'Try now',
    node: (name) => `Node ${isolated(name)}`,
    moved: (name) => `Moved to ${isolated(name)}`,
    openMoved: 'Open its page',
  },

  install: 'Install',

  join: {
    open: 'Add a device',
    heading: 'Add a device',
    https: 'https for this node',
    httpsOff: 'Phones keep their screens on, and the page can be installed, when the node is started with --tls.',
    how: 'In the same network, scan the code with the camera or type the address into any browser. It helps as soon as the page is open.',
    code: (url) => `QR code of ${url}`,
    others: 'Other addresses of this node',
    copy: 'Copy address',
    copied: 'Copied',
    close: 'Close',
    unknown: 'The node does not answer, so its address is not known.',
    moved: 'The node that served this page is gone. Open the page of the node at the top, and add devices there.',
    alone: 'Only this machine reaches this node: it is bound to it, or there is no network. Connect to a network, and start the node without --bind.',
  },

  authority: {
    title: 'https · gemmesh',
    heading: 'gemmesh over https',
    why: 'Over https a phone keeps its screen on while it helps, and the page can be installed as an app. All else works without.',
    how: 'For that, this device has to trust the certificate of the node. Install it once:',
    there: 'This page came over https: this device trusts the node already.',
    off: 'This node does not answer https. Start it with',
    get: 'Get the certificate',
    check: (name) => `It is called “${name}”. Its SHA-256 fingerprint must be the one that the node shows where it was started:`,
    then: 'Then open',
    limits: 'The certificate counts for local networks only: with it nobody can pass for a public website. Its key stays on the node. Who no longer uses the node removes it where it was installed.',
    back: 'Back to the page',
    systems: {
      android: {
        heading: 'Android (Chrome, Edge)',
        steps: [
          'Get the certificate; Chrome keeps it in the downloads.',
          'In Settings, search for “CA certificate” (Security, Encryption & credentials, Install a certificate).',
          'Choose “CA certificate”, “Install anyway”, and the file ca.crt.',
        ],
      },
      ios: {
        heading: 'iPhone and iPad',
        steps: [
          'In Safari, get the certificate and allow the download.',
          'Settings, General, VPN & Device Management: open the profile and install it.',
          'Settings, General, About, Certificate Trust Settings: switch it on.',
        ],
      },
      macos: {
        heading: 'macOS (Safari, Chrome)',
        steps: ['Get the certificate and open it; Keychain Access adds it to “login”.', 'Open it there, and under Trust choose “Always Trust”.'],
      },
      windows: {
        heading: 'Windows (Edge, Chrome)',
        steps: [
          'Get the certificate, open it, and choose “Install Certificate”, “Current User”.',
          'Place it in “Trusted Root Certification Authorities”.',
        ],
      },
      linux: {
        heading: 'Linux (Chrome, Chromium)',
        steps: [
          'Get the certificate.',
          'Settings, Privacy and security, Security, Manage certificates, Installed by you: import it under “Trusted certificates”.',
        ],
      },
      firefox: {
        heading: 'Firefox, on any computer',
        steps: [
          'Get the certificate; if Firefox asks, trust it to identify websites, and that is all.',
          'Else: Settings, Privacy & Security, View Certificates, Authorities, Import.',
        ],
      },
    },
  },

  contribution: {
    heading: 'My Node Contribution',
    status: {
      starting: 'Measuring this device…',
      offline: 'Waiting for the node',
      away: 'Asleep while hidden',
      left: 'Left the mesh',
      paused: 'Paused',
      computing: 'Computing',
      ready: 'Ready for work',
      unsupported: 'Not computing',
    },
    fields: {
      'compute-time': 'Compute time',
      mflops: 'MFLOPS',
      operations: 'Operations',
      rows: 'Rows of C',
      tiles: 'Tiles',
      device: 'Device',
      node: 'Node',
      job: 'Job',
      'last-tile': 'Last tile',
      status: 'Status',
    },
    jobs: 'For each job',
    columns: { name: 'Job', share: 'Share', tiles: 'Tiles', compute: 'Compute', mflops: 'MFLOPS' },
    share: (share) => `${number(Math.round(1000 * share) / 10)} %`,
    none: '–',
    lastTile: (last) => `#${number(last.tile)} in ${duration(last.kernel_ms / 1000)}`,
    name: 'Name of this device',
    threads: 'Threads',
    threadsOf: (threads, most) => `${threads} of ${most}`,
    leave: 'Leave',
    rejoin: 'Join again',
    pause: 'Pause',
    resume: 'Resume',
    speed: (mflops, limit, build) =>
      `Measured ${number(mflops)} MFLOPS per thread` +
      (limit ? ` (${Math.round((100 * mflops) / limit)} % of this browser's limit)` : '') +
      `, WebAssembly build ${build}`,
    bench: 'Benchmark',
    benching: 'Measuring…',
    benched: (dtype, { mflops, limit }, threads) =>
      `${dtype}: ${number(mflops)} MFLOPS per thread, ${Math.round((100 * mflops) / limit)} % of this browser’s limit of ${number(limit)}` +
      (threads > 1 ? `, ${threads} threads at once` : ''),
    benchFailed: (why) => `The benchmark did not finish (${why}). Try again.`,
    keepOpen: 'Keep this page in front and the screen on: a phone that looks away stops helping, and starts again when you are back.',
    noNode: (host) =>
      `No node answers at ${host}. Start gemmesh there again, or bring this device into its network; the page goes on by itself once it answers.`,
    awake: {
      label: 'Keep the screen on',
      lock: { on: 'It stays on while this page helps.', off: '', refused: 'The browser did not allow that; perhaps the battery is low.' },
      video: {
        on: 'It stays on while this page helps: a silent video plays.',
        off: 'Plays a silent video, because only over https a browser lets a page just ask.',
        refused: 'The browser did not play the silent video that keeps it on.',
      },
    },
    unsupported:
      'WebAssembly SIMD is missing. It is in Chrome 91, Firefox 89, Safari 16.4 and later. You can still submit products and see results.',
  },

  devices: {
    heading: 'Devices of the mesh',
    columns: { name: 'Name', kind: 'Kind', slots: 'Threads', mflops: 'MFLOPS', state: 'State' },
    kind: { native: 'node', browser: 'browser' },
    state: { ready: 'ready', busy: 'busy', paused: 'paused', lost: 'lost' },
    me: 'this page',
    home: 'this node',
    empty: 'No devices yet.',
    summary: (devices, threads, lost) => `${count(devices, 'device')}, ${count(threads, 'thread')}${lost ? `; ${number(lost)} lost` : ''}`,
  },

  mesh: {
    summary: (devices, lines) => `Picture of the mesh: ${count(devices, 'device')}, ${count(lines, 'link')}. The table below says the same.`,
    key: 'Circles are nodes, squares are pages. A ring marks who coordinates a job, a pale device is paused. Speeds are what this node has measured.',
    device: (name, state, jobs, rate) =>
      `${isolated(name)}: ${state}${jobs ? `, coordinates ${count(jobs, 'job')}` : ''}${rate === null ? '' : `, ${speed(rate)} from this node`}`,
    link: (rate) => `link ${speed(rate)}`,
    coordinates: (jobs) => `coordinates ${count(jobs, 'job')}`,
  },

  multiply: {
    heading: 'Multiply',
    presets: 'Size',
    custom: 'Custom',
    square: (n) => `${n}×${n}`,
    rows: 'Rows of A',
    inner: 'Columns of A = rows of B',
    cols: 'Columns of B',
    fillRandom: 'Fill random',
    clear: 'Clear',
    dtype: 'Element type',
    dtypes: {
      auto: 'Automatic',
      f64: 'f64 – 64-bit floating point',
      f32: 'f32 – 32-bit floating point',
      int: 'int – exact integers of any size',
    },
    mode: 'Kept from',
    modes: {
      plain: 'nobody: helpers see their parts',
      private: 'every helper (takes 3 or more)',
      masked: 'two helpers, unless they talk',
    },
    reproducible: 'Same bits on every device',
    reproducibleHint: 'Slower: every multiply-add rounds twice, in one order.',
    jobName: 'Name (optional)',
    run: 'Multiply',
    running: 'Submitting…',
    operand: { a: 'A', b: 'B' },
    shape: (rows, cols) => `${number(rows)} × ${number(cols)}`,
    cell: (operand, row, col) => `${operand.toUpperCase()}, row ${row + 1}, column ${col + 1}`,
    chooseFile: 'Choose a file',
    dropHint: 'or drop a .npy, .csv or .mtx file here',
    removeFile: 'Remove the file',
    random: (bytes, seed) =>
      `Random values (${bytes}), generated by this page when you multiply${seed === undefined ? '' : ` (seed ${seed.toString(16)})`}.`,
    generating: (operand) => `Generating ${operand.toUpperCase()}…`,
    uploading: (operand, percent) => `Uploading ${operand.toUpperCase()}: ${percent} %`,
    file: (name, shape, dtype) => `${isolated(name)}: ${shape}, ${dtype}`,
    previewLabel: (operand) => `Start of ${operand.toUpperCase()}`,
    preview: (complete) => (complete ? 'All of it' : 'Its upper left corner'),
    needs: ({ rows, cols, bytes: size, operations }) => `C will be ${number(rows)} × ${number(cols)}. All three matrices take ${bytes(size)}; ${scaled(operations)} operations.`,
    atLeast: (seconds, devices) => `${devices === 1 ? 'The one device here computes' : `The ${count(devices, 'device')} here compute`} that in about ${duration(seconds)}, and data has to travel.`,
    moment: 'It takes a moment.',
    nobody: 'Nobody computes at the moment.',
    predicted: (seconds, helpers, alone) =>
      `Predicted: ${duration(seconds)} with ${count(helpers, 'device')}${alone !== null && helpers > 1 ? `, ${duration(alone)} on the node alone` : ''}.`,
    gridHint: 'Arrow keys move between cells, a pasted table fills from the cell you are in, empty cells are 0.',
  },

  problem: {
    dimension: (name, most) => ({
      message: `${strings.multiply[name]}: this must be a whole number from 1 to ${number(most)}.`,
      hint: 'Correct the number.',
    }),
    tooLarge: (bytes, most) => ({
      message: `The matrix would have ${bytes}; this page generates at most ${most}.`,
      hint: 'Choose smaller dimensions, or put a file with PUT /api/matrices.',
    }),
    mismatch: (a, b) => ({
      message: `A has ${number(a)} column${a === 1 ? '' : 's'} but B has ${number(b)} row${b === 1 ? '' : 's'}.`,
      hint: 'These two must be equal. Choose another file for one of them.',
    }),
    notANumber: (where, text) => ({
      message: `${where}: “${isolated(text)}” is not a number.`,
      hint: 'Write numbers like 3, -2.5 or 1e-9; NaN and Infinity are numbers too.',
    }),
    notAnInteger: (where, text) => ({
      message: `${where}: “${isolated(text)}” is not an integer.`,
      hint: 'Write digits only, of any length, or choose another element type.',
    }),
    fileType: (name) => ({
      message: `“${isolated(name)}” is not a .npy, .csv or .mtx file.`,
      hint: 'Choose a file with one of these endings.',
    }),
    emptyFile: (name) => ({ message: `“${isolated(name)}” is empty.`, hint: 'Choose a file with a matrix in it.' }),
    network: {
      message: 'The node did not answer.',
      hint: 'Check that the node still runs and that this device is in the same network, or open the page of another node.',
    },
    elsewhere: {
      message: 'The node that served this page is gone, so it can not show the result.',
      hint: 'Download it here, or open the page of the node at the top.',
    },
    unexpected: (status) => ({ message: `The node answered ${status}.`, hint: 'See the log of the node.' }),
  },

  jobs: {
    heading: 'Jobs',
    empty: 'No products yet. Submit the first one.',
    own: 'mine',
    state: { queued: 'queued', running: 'running', done: 'done', failed: 'failed', cancelled: 'cancelled' },
    cancel: 'Cancel',
    more: (hidden) => `${number(hidden)} older ${hidden === 1 ? 'job is' : 'jobs are'} not shown.`,
    title: (job) => job.name || `Job ${job.job.slice(0, 8)}`,
    shape: (job) => job.products ? `${count(job.products, 'product')}, ${job.dtype}` : `${number(job.rows)} × ${number(job.inner)} × ${number(job.cols)}, ${job.dtype}`,
    failed: (failed) => `${count(failed.length, 'product')} of this batch failed; number ${failed[0].index}: ${failed[0].error}`,
    tiles: (done, total) => `${number(done)} of ${number(total)} tiles`,
    active: (devices) => `${count(devices, 'device')} helped`,
    took: (seconds) => duration(seconds),
  },

  job: {
    heading: (job) => strings.jobs.title(job),
    close: 'Close',
    facts: {
      shape: 'Product',
      tiles: 'Tiles',
      time: 'Time',
      predicted: 'Predicted',
      speed: 'Speed',
      coordinator: 'Coordinator',
      epoch: 'Epoch',
      copies: 'Safe copies',
      backups: 'Backups',
      traffic: 'Sent over the network',
      sharing: 'Kept from',
      id: 'Id',
    },
    /** How a private product was shared. */
    sharing: ({ scheme, compute_factor: factor, reveals, alone }) =>
      `${scheme}, ${factor.toFixed(2)} × the work: ${reveals}${alone ? '; too few helpers were left, so the rest was computed by the coordinator' : ''}`,
    progress: 'Progress',
    contributions: 'Who computed what',
    columns: {
      name: 'Device',
      kind: 'Kind',
      tiles: 'Tiles',
      rows: 'Rows',
      share: 'Share',
      compute: 'Compute',
      transfer: 'Transfer',
      mflops: 'MFLOPS',
    },
    noContributions: 'Nobody has finished a tile yet.',
    leftOut: ({ name, device, seconds, limit }, whole) => {
      const who = isolated(name.trim() || device.slice(0, 8));
      if (limit === 'memory') return `${who} is left out: its memory has no room for one tile.`;
      if (limit === 'start') return `${who} is left out: the job is done before it has heard of it.`;
      if (whole !== null && seconds <= whole) return `${who} is left out: it would spare too little.`;
      return `${who} is left out: ${limit === 'link' ? 'its link' : 'it'} needs ${duration(seconds)} for one tile.`;
    },
    timeline: 'What happened',
    moment: ({ event, name, tile, epoch }) => {
      const who = isolated(name);
      const texts = {
        taken: `${who} took the job`,
        joined: `${who} joined`,
        left: `${who} left`,
        took_over: `${who} took over (epoch ${number(epoch)})`,
        backed_up: `${who} became a backup`,
        reassigned: `Tile #${number(tile)} of ${who} went to another device`,
        quarantined: `Tile #${number(tile)} from ${who} was wrong; it gets no more work`,
        ended: `The job ended at ${who}`,
      };
      return texts[event] ?? `${who}: ${event}`;
    },
    left: (seconds) => (seconds < 1 ? 'less than a second left' : `about ${duration(Math.ceil(seconds))} left`),
  },

  watch: {
    heading: 'The result, tile by tile',
    map: 'Map of the result',
    mapOf: (done, total, devices) =>
      `Map of the result: ${number(done)} of ${count(total, 'tile')}, from ${count(devices, 'device')}. Arrow keys go from tile to tile.`,
    legend: 'Devices of this job',
    hint: 'Point at a tile or a device to see its figures.',
    share: (tiles, total) => `${count(tiles, 'tile')}, ${Math.round((100 * tiles) / total)} %`,
    device: (name, { tiles, kernel, transfer }) =>
      `${isolated(name)}: ${count(tiles, 'tile')}, ${duration(kernel)} of computing, ${duration(transfer)} of waiting for data`,
    tile: (tile, { row, lastRow, col, lastCol }, piece, name) => {
      const where = `Tile ${number(tile)}, rows ${strings.watch.range(row, lastRow)}, columns ${strings.watch.range(col, lastCol)}`;
      if (!piece) return `${where}: not there yet`;
      const when = piece.at === null ? '' : `, there after ${duration(piece.at)}`;
      return `${where}: ${isolated(name)}, ${duration(piece.kernel)} of computing, ${duration(piece.transfer)} of waiting for data${when}`;
    },
    range: (first, last) => (first === last ? number(first) : `${number(first)}–${number(last)}`),
    table: 'Tiles as a table',
    tableShows: (shown, all) => (shown < all ? `The latest ${number(shown)} of ${number(all)} tiles.` : 'All tiles so far, the latest first.'),
    columns: { tile: 'Tile', rows: 'Rows', cols: 'Columns', name: 'Device', at: 'There after', compute: 'Compute', transfer: 'Waiting' },
    unknown: 'not known',
    tooMany: (tiles, most) => `This job has ${number(tiles)} tiles; a map is drawn of up to ${number(most)}.`,
    notHere: 'The node that served this page is gone, so it can not draw who computed what. The table below is up to date.',
    differs: 'Another node took this job over, and some tiles were computed twice. The table of who computed what counts those that were accepted.',
    shared: 'The coordinator put these tiles together from what the devices computed of their shares; the table of who computed what counts that.',
    failed: (why) => `The map can not be drawn: ${why}`,
  },

  stream: {
    heading: 'Time of each device',
    key: 'Full colour: computing. Pale: waiting for data. Empty: idle. A bar ends when its tile was safe on a disk.',
    shares: (compute, transfer) => `${compute} % computing, ${transfer} % waiting`,
  },

  result: {
    heading: 'Result',
    inline: (rows, cols) => `C, ${number(rows)} × ${number(cols)}`,
    preview: (rows, cols) => `The first ${rows} rows and ${cols} columns of C`,
    loading: 'Loading the result…',
    download: 'Download',
    product: (products) => `Product number (0 to ${number(products - 1)})`,
    formats: { npy: '.npy (NumPy)', csv: '.csv', mtx: '.mtx (Matrix Market)' },
    copy: 'Copy',
    copied: 'Copied',
    more: '…',
    corner: 'First values as a table',
    figures: { norm: 'Norm', min: 'Least', max: 'Largest', nan: 'Not a number' },
    none: 'none',
    summaryOf: (rows, cols) => `Figures of the first ${rows} rows and ${cols} columns.`,
  },

  heat: {
    map: 'Heat map of the result. Arrow keys go from cell to cell, with Shift they move the window; plus, minus and 0 zoom.',
    hint: 'Point at the map for a value. Double-click or + to zoom in, drag to move.',
    drawing: 'The node is drawing…',
    zoomIn: 'Zoom in',
    zoomOut: 'Zoom out',
    whole: 'All',
    window: ({ row, col, rows, cols }, whole) =>
      rows === whole.rows && cols === whole.cols
        ? `all ${number(whole.rows)} × ${number(whole.cols)}`
        : `rows ${strings.watch.range(row, row + rows - 1)} of ${number(whole.rows)}, columns ${strings.watch.range(col, col + cols - 1)} of ${number(whole.cols)}`,
    value: (row, col, value) => `Row ${number(row)}, column ${number(col)}: ${value}`,
    mean: (rows, cols, value) => `Rows ${rows}, columns ${cols}: mean ${value}`,
  },

  share: {
    link: 'Copy link',
    command: 'Copy as command',
    numpy: 'Copy as NumPy',
    copied: 'Copied',
    again: 'Run again',
    lost: 'This job can not be opened.',
  },

  log: {
    heading: 'Log',
    connected: (node) => `Connected to ${isolated(node)}`,
    moved: (node) => `Moved to ${isolated(node)}; the work goes on`,
    disconnected: 'Connection to the node lost',
    refused: (text) => `Refused: ${text}`,
    leftMesh: 'This page has left the mesh and computes nothing more',
    rejoined: 'This page joins the mesh again',
    newId: 'Another page has the id of this one; this page took a new id',
    joined: (name) => `${isolated(name)} joined`,
    left: (name) => `${isolated(name)} was lost`,
    jobState: (job, state) => `${isolated(strings.jobs.title(job))}: ${state}`,
    submitted: (id) => `Submitted job ${id.slice(0, 8)}`,
    ready: (threads, build) => `Started ${count(threads, 'thread')} (build ${build})`,
    slotFailed: (slot, why) => `Thread ${slot + 1} failed and was started again: ${why}`,
    notKept: (why) => `Without a node this page will not open: the browser does not keep it (${why})`,
    resumed: 'The page was asleep; connecting again',
    workerFailed: (why) => `The mesh worker failed: ${why}`,
    fallback: 'The relaxed-simd build did not load; using simd',
  },

  defaultName: (browser, system, suffix) => `${browser} on ${system} ${suffix}`,
};
