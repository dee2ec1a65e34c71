// The sensitivity map. props.spec: the chart (drawn again when it changes); props.value: {version, plan, selected, teacher, window,
// source}, where `selected` are places on the block axis; props.shown: {edit, colour}; props.measures: {bars, weights, scales}.
// Marks, the selection, the edit shown, its scale and the bars are repainted through datasets and signals, never by drawing
// again. Edits leave by the stream (edits.js); Python's answer is the plan after them.
const host = element.querySelector('.map-host'), line = element.querySelector('.map-line');
let view = null, mounts = 0, width = 0, cursor = null, edge = null, notifying = null;

// What this window shows. props.value is a copy for Python: an answer that is on its way must not bring back an older one.
const shown = {version: 0, plan: null, selected: [], teacher: null, source: 'map'};
const plan = () => shown.plan || {marks: [], ribbons: [], student: []};
const publish = () => { props.value = {...shown, window: stream.window}; };

const stream = new workbench.EditStream({
  send: batch => server.edit(batch),
  confirmed: answer => {
    if (answer.plan && answer.version >= shown.version) Object.assign(shown, {version: answer.version, plan: answer.plan});
    publish();
    const refusals = answer.refused || [];
    if (refusals.length) refuse(refusals);
    trigger('edited', {});
  },
  changed: () => {
    host.dataset.waiting = stream.pending.length;
    if (stream.failures) say('Not saved yet: the app cannot be reached. Trying again.', 'problem');
    else if (line.dataset.kind === 'problem' && !stream.pending.length && !line.querySelector('button') && line.dataset.wait) say('');
    line.dataset.wait = stream.failures ? 'yes' : '';
    repaint();
  },
});

function edit(verb, more = {}) {
  say('');
  stream.push({verb, places: [...shown.selected], teacher: shown.teacher, ...more});
}

// One line under the map, whose room is always there: a message must not move what is under the pointer.
function say(text, kind = '', offers = []) {
  line.dataset.kind = text ? kind : '';
  line.replaceChildren(Object.assign(document.createElement('span'), {textContent: text}));
  for (const offer of offers) {
    const button = Object.assign(document.createElement('button'), {type: 'button', textContent: offer.label});
    button.onclick = () => { select(offer.places, true); edit(offer.verb); host.focus({preventScroll: true}); };
    line.append(button);
  }
}

function refuse(refusals) {
  const last = refusals[refusals.length - 1], others = refusals.length - 1;
  const more = others ? ` (and ${others} more ${others > 1 ? 'edits' : 'edit'} before it)` : '';
  say(last.reason + more, 'problem', last.offers || []);
}

function repaint() {
  const chosen = new Set(shown.selected);
  if (view) {
    const marks = workbench.expected(plan().marks, stream.pending.filter(edit => edit.teacher === shown.teacher));
    view.data('marks', marks.map(row => ({...row, selected: chosen.has(row.at)})));
    view.data('ribbons', structuredClone(plan().ribbons)).data('student', structuredClone(plan().student)).runAsync();
  }
  host.dataset.selected = [...chosen].join(',');
  host.dataset.version = shown.version;
}

// The edit shown, its scale, and the bars: set by Python, kept when the map is drawn again.
function retune() {
  if (!view || !props.spec.usermeta?.map) return;
  const bars = props.measures || {bars: [], weights: [], scales: {}}, edit = props.shown?.edit;
  // Of another map, whose drawing is still to come: mount calls this again.
  if (!edit || !(edit in view.signal('scales')) || (bars.bars.length && !(edit in bars.scales))) return;
  view.signal('edit', edit).signal('colour', props.shown.colour);
  if (bars.bars.length) view.signal('barscales', bars.scales);
  for (const name of ['bars', 'weights']) if (bars[name].length) view.data(name, structuredClone(bars[name]));
  view.runAsync();
  host.dataset.shown = props.shown?.edit + ' ' + props.shown?.colour;
}

// source: where blocks were selected; the table's own boxes are not set again from here.
function select(places, now, source = 'map') {
  shown.selected = [...new Set(places)].sort((a, b) => a - b);
  shown.source = source;
  publish();
  repaint();
  note();
  clearTimeout(notifying);  // Python is notified of a drag once, at its end
  notifying = setTimeout(() => trigger('select', {index: shown.selected, value: 'blocks', selected: places.length > 0}), now ? 0 : 120);
}

// The address names what is selected: 3-5,9.
function note() {
  const runs = [];
  for (const at of shown.selected) {
    const last = runs[runs.length - 1];
    if (last && last[1] === at - 1) last[1] = at; else runs.push([at, at]);
  }
  const select = runs.map(([first, last]) => first === last ? first : `${first}-${last}`).join(',');
  (window.workbenchNotes ??= []).push(['keep', {select}]);
  window.workbenchAddress?.take();
}

const range = (a, b) => Array.from({length: Math.abs(b - a) + 1}, (_, i) => Math.min(a, b) + i);
const placeOf = item => item?.datum?.block !== undefined && item.datum.at !== undefined ? item.datum.at : null;

// A click selects a block, Shift a range from the block clicked before, Ctrl or a touch adds one or takes it away.
function listen() {
  let press = null;
  view.addEventListener('pointerdown', (event, item) => {
    const at = placeOf(item);
    if (at === null || event.button) return;
    const toggles = event.ctrlKey || event.metaKey || event.pointerType === 'touch', ranges = event.shiftKey && cursor !== null;
    press = {at, toggles, ranges, base: toggles ? [...shown.selected] : [], moved: false};
    host.focus({preventScroll: true});
  });
  view.addEventListener('pointermove', (event, item) => {
    const at = placeOf(item);
    if (!press || at === null || event.pointerType === 'touch' || (at === press.at && !press.moved)) return;
    press.moved = true;
    select([...press.base, ...range(press.at, at)]);
  });
  press_end = () => {
    if (!press) return;
    const {at, toggles, ranges, base, moved} = press;
    press = null;
    if (!moved && ranges) select([...base, ...range(cursor, at)], true);
    else if (!moved && toggles && base.includes(at)) select(base.filter(place => place !== at), true);
    else if (!moved) select([...base, at], true);
    edge = at;
    if (!ranges || moved) cursor = at;
  };
  view.addEventListener('pointerup', press_end);
}
let press_end = () => {};
window.addEventListener('pointerup', () => element.isConnected && press_end());

function drawing() {
  width = host.clientWidth;
  const narrow = width < 640, total = plan().marks.length || 1;
  const room = Math.max(total * (narrow ? 12 : 8), 240, width - (props.spec.usermeta?.map ? props.spec.usermeta.beside[narrow ? 'narrow' : 'wide'] : 80));
  const spec = workbench.fit(workbench.theme(props.spec, narrow), room);
  return {...spec, datasets: {...spec.datasets, ...structuredClone(plan())}};
}

async function mount() {
  if (!props.spec || !shown.plan) return;
  const result = await workbench.draw(host, drawing);
  if (!result) return;
  view = host.view = result.view;  // on the element for the console and the tests
  host.dataset.mounts = ++mounts;
  listen();
  retune();
  repaint();
}

// Keyboard: arrows move, shift extends, Escape clears. Everywhere on the page but in fields that take text: K/D/M mark, U or
// Ctrl+Z undo, Ctrl+Shift+Z redo, Ctrl+A selects all.
host.addEventListener('keydown', event => {
  const total = plan().marks.length;
  if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
    const step = event.key === 'ArrowLeft' ? -1 : 1;
    edge = Math.min(total - 1, Math.max(0, (edge ?? (step > 0 ? -1 : total)) + step));
    if (!event.shiftKey || cursor === null) cursor = edge;
    select(range(cursor, edge));
  } else if (event.key === 'Escape') select([], true);
  else return;
  event.preventDefault();
});
const VERBS = {k: 'keep', d: 'drop', m: 'merge', u: 'undo'};
const TEXT = 'textarea, [contenteditable=true], .cm-editor, input:not([type=radio], [type=checkbox], [type=range], [type=button])';
function shortcut(event) {
  if (!element.isConnected) return document.removeEventListener('keydown', shortcut);
  if (event.altKey || element.offsetParent === null || event.target.closest?.(TEXT)) return;
  const key = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
  if (control && key === 'a') select(plan().marks.map(row => row.at), true);
  else if (control && key === 'z') edit(event.shiftKey ? 'redo' : 'undo');
  else if (control && key === 'y') edit('redo');
  else if (!control && VERBS[key]) { if (!event.repeat || key === 'u') edit(VERBS[key]); }
  else return;
  event.preventDefault();  // a list that has the focus would jump to its next entry with that letter
}
document.addEventListener('keydown', shortcut);

// For the page's buttons and forms. settled: the values of a Gradio event once every edit is confirmed, with the map's as it is then.
workbench.map = {edit, select, focus: () => host.focus({preventScroll: true}), shown: () => shown};
workbench.settled = async values => {
  await stream.settled();
  return values.map(value => value?.window === stream.window ? {...shown, window: stream.window} : value);
};

// From Python: the plan on disk. Of the same teacher, an older one than this window has seen is left out, and asked for again.
function receive() {
  const value = props.value || {}, is_same = value.teacher === undefined || value.teacher === shown.teacher;
  const is_old = is_same && value.version < shown.version;
  if (value.note) say(value.note, 'notice');
  if (!is_old && value.plan) {
    if (!is_same) Object.assign(shown, {teacher: value.teacher, selected: [], source: 'map'});
    Object.assign(shown, {version: value.version, plan: value.plan});
    if (value.select) Object.assign(shown, {selected: value.select, source: 'map'});  // of an address
    stream.version = value.version;
  }
  publish();
  if (!view) mount(); else repaint();
  if (is_old) trigger('edited', {});
}

watch('spec', mount);
watch(['shown', 'measures'], retune);
watch('value', receive);
new MutationObserver(mount).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(() => { if (Math.abs(host.clientWidth - width) > 16) mount(); }).observe(host);
receive();
await mount();
