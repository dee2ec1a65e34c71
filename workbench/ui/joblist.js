// The list of jobs. props.value: {jobs: [...], selected}. All text goes in as textContent.
const host = element.querySelector('.jobs-host');
const make = (tag, name, text) => Object.assign(document.createElement(tag), {className: name, textContent: text ?? ''});

function row(job) {
  const button = make('button', 'job-row' + (job.id === props.value.selected ? ' chosen' : ''));
  const badge = make('span', 'badge ' + job.state, job.state);
  const title = make('span', 'job-title', job.title);
  title.title = job.title;
  const bar = make('span', 'job-bar');
  bar.append(Object.assign(make('i', job.state), {style: `width:${Math.round(100 * (job.share || 0))}%`}));
  button.append(badge, title, bar, make('span', 'job-note', job.note));
  button.dataset.job = job.id;
  button.setAttribute('aria-current', job.id === props.value.selected);
  button.onclick = () => {
    props.value = {...props.value, selected: job.id};
    draw();
    trigger('select', {index: job.id, value: job.id, selected: true});
  };
  return button;
}

function draw() {
  const focus = document.activeElement?.dataset?.job;
  const jobs = props.value?.jobs || [];
  if (jobs.length) host.replaceChildren(...jobs.map(row));
  else host.replaceChildren(make('p', 'empty', 'No jobs yet. Profile a teacher, build a plan or distill a student on the first page: it shows up here.'));
  if (focus) host.querySelector(`[data-job="${CSS.escape(focus)}"]`)?.focus();
}
watch('value', draw);
draw();
