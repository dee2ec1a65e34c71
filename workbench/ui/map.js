// The sensitivity map. props.spec: the chart (drawn again when it changes); props.value: {version, selected, plan}, where
// `selected` are places on the block axis; props.shown: {edit, colour}; props.measures: {bars, weights, scales}. Marks, the
// selection, the edit shown, its scale and the bars are repainted through datasets and signals, never by drawing again.
const host = element.querySelector('.map-host'), note = element.querySelector('.map-note');
let view = null, mounts = 0, width = 0, cursor = null, edge = null, notifying = null;

const plan = () => props.value?.plan || {marks: [], ribbons: [], student: []};
const selected = () => new Set(props.value?.selected || []);

function repaint() {
  const chosen = selected();
  if (view) {
    view.data('marks', plan().marks.map(row => ({...row, selected: chosen.has(row.at)})));
    view.data('ribbons', structuredClone(plan().ribbons)).data('student', structuredClone(plan().student)).runAsync();
  }
  host.dataset.selected = [...chosen].join(',');
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

function select(places, now) {
  props.value = {...props.value, selected: [...new Set(places)].sort((a, b) => a - b)};
  repaint();
  note.textContent = props.value.selected.length ? props.value.selected.length + ' selected' : 'nothing selected';
  clearTimeout(notifying);  // Python is notified of a drag once, at its end
  notifying = setTimeout(() => trigger('select', {index: props.value.selected, value: 'blocks', selected: places.length > 0}), now ? 0 : 120);
}

const range = (a, b) => Array.from({length: Math.abs(b - a) + 1}, (_, i) => Math.min(a, b) + i);
const placeOf = item => item?.datum?.block !== undefined && item.datum.at !== undefined ? item.datum.at : null;

function listen() {
  let press = null;
  view.addEventListener('pointerdown', (event, item) => {
    const at = placeOf(item);
    if (at === null || event.button) return;
    const add = event.shiftKey || event.ctrlKey || event.metaKey || event.pointerType === 'touch';
    press = {at, add, base: add ? selected() : new Set(), moved: false};
    host.focus({preventScroll: true});
  });
  view.addEventListener('pointermove', (event, item) => {
    const at = placeOf(item);
    if (!press || at === null || event.pointerType === 'touch' || (at === press.at && !press.moved)) return;
    press.moved = true;
    select([...press.base, ...range(press.at, at)]);
  });
  press_end = () => {
    if (press && !press.moved) {
      const next = new Set(press.base);
      if (press.add && next.has(press.at)) next.delete(press.at); else next.add(press.at);
      select([...next], true);
    }
    if (press) cursor = edge = press.at;
    press = null;
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
  if (!props.spec || !props.value?.plan) return;
  const result = await workbench.draw(host, drawing);
  if (!result) return;
  view = host.view = result.view;  // on the element for the console and the tests
  host.dataset.mounts = ++mounts;
  listen();
  retune();
  repaint();
}

// Keyboard: arrows move, shift extends, K/D/M mark, U undo, Escape clears. The buttons do the work, so that there is one way.
const buttons = {k: 'mark-keep', d: 'mark-drop', m: 'mark-merge', u: 'undo'};
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
function shortcut(event) {
  if (!element.isConnected) return document.removeEventListener('keydown', shortcut);
  const name = buttons[event.key.toLowerCase()];
  if (!name || event.ctrlKey || event.metaKey || event.altKey || element.offsetParent === null) return;
  if (event.target.closest('input, textarea, select, [contenteditable=true], .cm-editor')) return;
  document.getElementById(name)?.click();
}
document.addEventListener('keydown', shortcut);

watch('spec', mount);
watch(['shown', 'measures'], retune);
watch('value', () => { if (!view) mount(); else repaint(); });
new MutationObserver(mount).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(() => { if (Math.abs(host.clientWidth - width) > 16) mount(); }).observe(host);
await mount();
