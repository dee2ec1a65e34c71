// The list of jobs. props.value: {jobs: [...], selected}. All text goes in as textContent.
// A row with `links` is a chain: it unfolds the rows behind it, which name it as `of`.
const host = element.querySelector('.jobs-host');
const make = (tag, name, text) => Object.assign(document.createElement(tag), {className: name, textContent: text ?? ''});
let seen;  // the selected job that has been in view
const unfolded = new Map();  // chain -> what was chosen here; else it is open where its link is selected

function isOpen(chain) {
  const chosen = (props.value?.jobs || []).find(job => job.id === props.value.selected);
  return unfolded.get(chain) ?? chosen?.of === chain;
}

function press(job) {
  if (job.links) {
    unfolded.set(job.id, !isOpen(job.id));
    return draw();
  }
  props.value = {...props.value, selected: seen = job.id};
  draw();
  trigger('select', {index: job.id, value: job.id, selected: true});
}

function row(job) {
  const chosen = job.id === props.value.selected;
  const button = make('button', 'job-row' + (chosen ? ' chosen' : '') + (job.of ? ' link' : ''));
  const badge = make('span', 'badge ' + job.state, job.state);
  const mark = job.links ? (isOpen(job.id) ? '▾ ' : '▸ ') : '';
  const title = make('span', 'job-title', mark + job.title);
  title.title = job.title;
  const bar = make('span', 'job-bar');
  bar.append(Object.assign(make('i', job.state), {style: `width:${Math.round(100 * (job.share || 0))}%`}));
  const note = make('span', 'job-note', job.note);
  if (job.state === 'queued' && !job.share) button.append(badge, note, title);  // an empty bar says nothing
  else button.append(badge, note, bar, title);
  button.dataset.job = job.id;
  if (job.links) button.setAttribute('aria-expanded', isOpen(job.id));
  else button.setAttribute('aria-current', chosen);
  button.onclick = () => press(job);
  return button;
}

function drawRows(jobs) {
  const rows = [];
  let heading = '';
  for (const job of jobs) {
    if (job.heading && job.heading !== heading) rows.push(make('h2', 'job-heading', heading = job.heading));
    rows.push(row(job));
  }
  return rows;
}

function nothing() {
  const box = make('div', 'jobs-none'), start = make('p', '', 'Start one from the plan: ');
  const forms = {profile: 'Profile a teacher', build: 'Build a student', distill: 'Distill it'};
  for (const [form, text] of Object.entries(forms)) {
    const link = Object.assign(make('a', '', text), {href: `?tab=plan&form=${form}`});
    link.dataset.address = '';
    start.append(link, form === 'distill' ? '.' : ', ');
  }
  box.append(make('h3', '', 'No jobs yet'), make('p', '', 'A job is work that takes a while: profiling a teacher, building a student, distilling '
    + 'it, comparing models. It goes on when this page is closed. Its progress, losses and log show up here.'), start);
  return box;
}

function draw() {
  const focus = document.activeElement?.dataset?.job, top = host.scrollTop;
  const jobs = (props.value?.jobs || []).filter(job => !job.of || isOpen(job.of));
  host.replaceChildren(...(jobs.length ? drawRows(jobs) : [nothing()]));
  host.scrollTop = top;
  const chosen = host.querySelector('.chosen');
  if (chosen && seen !== props.value.selected && host.offsetParent) {
    host.scrollTop += chosen.getBoundingClientRect().top - host.getBoundingClientRect().top - 30;
    seen = props.value.selected;
  }
  if (focus) host.querySelector(`[data-job="${CSS.escape(focus)}"]`)?.focus();
}
watch('value', draw);
draw();
