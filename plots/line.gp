# line.gp - one panel of lines with intervals, where there are any. data: a block of "x y lo hi" a series, then a block of "x y" for each series' companion.
# first: number of the panel's first block; series: how many; style[i]: colour and shape of series i; companions: 1 where the second half of the blocks is drawn, dashed.
plot for [i=1:series] data index first+i-1 using 1:2 with lines linecolor rgb colour[style[i]] linewidth 1.6 notitle, \
     for [i=1:series] data index first+i-1 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linecolor rgb colour[style[i]] pointtype shape[style[i]] linewidth 1.1 notitle, \
     for [i=1:series] data index first+i-1 using 1:($4>$3 ? NaN : $2) with points linecolor rgb colour[style[i]] pointtype shape[style[i]] linewidth 1.1 notitle, \
     for [i=1:series*companions] data index first+series+i-1 using 1:2 with lines dashtype (6,5) linecolor rgb colour[style[i]] linewidth 1.1 notitle
