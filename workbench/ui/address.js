// The window's address. What a person chooses makes an entry of the history at once, in the order of the presses; what the page
// sets by itself is written into the entry that is there. Back and Forward: props.value is what the address names, event `moved`.
// props.names: value -> name, of records that share a name; props.labels: kind of tabs -> {id: label}; props.seen: the number of the
// last `moved` that Python has answered.
const HOSTS = {pages: 'tab', work: 'panel', launch: 'form'}, FIRST = {tab: 'plan', panel: 'propose', form: 'build'};
const BELONG = {plan: ['map', 'panel', 'plan', 'select', 'form'], jobs: ['job'], compare: ['comparison']};
const RECORDS = ['teacher', 'map', 'plan', 'comparison'];
const read = () => Object.fromEntries(new URLSearchParams(location.search));
let state = {...FIRST, ...read()}, leading = false, number = 0;

const nameOf = value => props.names?.[value] ?? String(value ?? '').split('/').pop().replace(/\.(json|ya?ml)$/, '');

function text() {
  const found = new URLSearchParams();
  for (const [key, value] of new URLSearchParams(location.search)) if (key.startsWith('__')) found.set(key, value);  // Gradio's own
  if (state.tab !== FIRST.tab) found.set('tab', state.tab);
  for (const key of ['teacher', ...(BELONG[state.tab] || [])]) if (state[key] && state[key] !== FIRST[key]) found.set(key, state[key]);
  return found.toString().replaceAll('%2C', ',');
}

function write(changes, how) {
  const known = {...changes}, before = text();
  for (const key of RECORDS) if (key in known) known[key] = nameOf(known[key]);
  const is_other = 'teacher' in known && state.teacher && known.teacher !== state.teacher;
  if (is_other) Object.assign(state, {map: '', plan: '', select: ''});  // of the former teacher
  Object.assign(state, known);
  const next = text();
  if (next !== before || (how === 'replaceState' && next !== location.search.slice(1))) {
    history[how](null, '', next ? '?' + next : location.pathname);
  }
}

const HOW = {
  go: changes => { props.seen = number; write(changes, 'pushState'); },
  // While an address is being shown, the page sets what it names, one after the other: no news for the address.
  keep: changes => { if (number <= (props.seen || 0) || 'select' in changes) write(changes, 'replaceState'); },
};
window.workbenchAddress = {take() { for (const [how, changes] of (window.workbenchNotes || []).splice(0)) HOW[how](changes); }};

// Tabs: the click itself is the step, so that the order of the history is that of the clicks. A tab that does not fit is in a menu,
// where it is known by its label only.
const kindOf = button => HOSTS[button?.closest('.tab-wrapper')?.parentElement.id];
function idOf(button, kind) {
  const label = button.textContent.trim();
  return button.dataset.tabId || Object.keys(props.labels[kind]).find(id => props.labels[kind][id] === label);
}

function onclick(event) {
  if (!element.isConnected) return document.removeEventListener('click', onclick, true);
  const link = event.target.closest?.('a[data-address]'), plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);
  if (link && plain) {
    event.preventDefault();
    if (link.search !== location.search) history.pushState(null, '', link.search || location.pathname);
    arrive();
    if (read().form) document.getElementById('launch')?.scrollIntoView({block: 'center'});
    return;
  }
  const button = event.target.closest?.('button'), kind = kindOf(button), id = kind && idOf(button, kind);
  if (id && !leading) HOW.go({[kind]: id});
}
document.addEventListener('click', onclick, true);

function open(host, tries = 50) {
  const kind = HOSTS[host], every = `#${host} > .tab-wrapper :is([role=tab], .overflow-dropdown button)`;
  const buttons = [...document.querySelectorAll(every)], button = buttons.find(each => idOf(each, kind) === state[kind]);
  if (!buttons.length && tries) return setTimeout(() => open(host, tries - 1), 100);  // still to come
  if (!button || button.getAttribute('aria-selected') === 'true') return;
  leading = true;
  button.click();
  leading = false;
}

function arrive() {
  const named = read(), tab = named.tab || FIRST.tab, former = {...state};
  if (named.teacher && named.teacher !== state.teacher) Object.assign(former, {map: '', plan: ''});
  if (tab === 'plan') Object.assign(former, {select: '', panel: FIRST.panel, form: FIRST.form});
  state = {...former, ...named, tab};
  for (const host of Object.keys(HOSTS)) open(host, 0);
  props.value = {...named, tab, number: ++number};
  trigger('moved', {});
}
window.addEventListener('popstate', () => element.isConnected && arrive());
// A tab that was pressed before this script was there stays open; the address takes it in.
for (const [host, kind] of Object.entries(HOSTS)) {
  const pressed = document.querySelector(`#${host} > .tab-wrapper [role=tab][aria-selected=true]`);
  if (read()[kind]) open(host);
  else if (pressed && idOf(pressed, kind) !== FIRST[kind]) write({[kind]: idOf(pressed, kind)}, 'replaceState');
}
window.workbenchAddress.take();
