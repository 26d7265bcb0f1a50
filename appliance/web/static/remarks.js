// Why a chart shows less than one would think. answers: of /api/v1/chart.

export function remarksOn(answers) {
  return answers.map(remarkOn).filter(Boolean);
}

function remarkOn({ sensor, metric, exists, step_ms, times_ms, left_out_count }) {
  const name = `${sensor} ${metric}`;
  if (!exists) return `There is no series ${name}.`;
  // Windows are asked for only where readings were found; one without a number is absent.
  if (!times_ms.length) return `${name} has ${step_ms ? "only NaN" : "no readings"} in this span.`;
  if (!left_out_count) return "";
  if (step_ms) return `${name}: ${left_out_count === 1 ? "1 window holds" : `${left_out_count} windows hold`} infinite readings and ${left_out_count === 1 ? "is" : "are"} left out.`;
  return `${name}: ${left_out_count === 1 ? "1 reading is" : `${left_out_count} readings are`} NaN or infinite and left out.`;
}
